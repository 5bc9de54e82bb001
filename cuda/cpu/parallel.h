// OpenMP when the compiler has it, a serial loop otherwise.
#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif

#include "kernels.h"

#if defined(_MSC_VER)
#define A3D_RESTRICT __restrict
#define A3D_INLINE __forceinline
#else
#define A3D_RESTRICT __restrict__
#define A3D_INLINE inline __attribute__((always_inline))
#endif

namespace {

#ifdef _OPENMP
inline int thread_index() { return omp_get_thread_num(); }
inline int team_size() { return omp_get_num_threads(); }
#else
inline int thread_index() { return 0; }
inline int team_size() { return 1; }
#endif

template <class T>
inline T* reserve(avatar3d::Buffer& buffer, size_t count) {
  return static_cast<T*>(avatar3d::reserve_bytes(buffer, count * sizeof(T)));
}

template <class T>
inline T* data(const avatar3d::Buffer& buffer) {
  return static_cast<T*>(buffer.data);
}

inline int smaller(int a, int b) { return a < b ? a : b; }
inline int larger(int a, int b) { return a > b ? a : b; }

}  // namespace
