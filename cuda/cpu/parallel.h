// Loops over threads, memory that is reused, and what compilers call by different names.
#pragma once

#include "kernels.h"

#if defined(_MSC_VER)
#define A3D_RESTRICT __restrict
#define A3D_UNROLL(times)
#define A3D_INLINE __forceinline
#else
#define A3D_RESTRICT __restrict__
#define A3D_INLINE inline __attribute__((always_inline))
#define A3D_PRAGMA(words) _Pragma(#words)
#if defined(__clang__)
#define A3D_UNROLL(times) A3D_PRAGMA(clang loop unroll_count(times))
#else
#define A3D_UNROLL(times) A3D_PRAGMA(GCC unroll times)
#endif
#endif

namespace {

// Calls body(i, worker) once for each i in [0, count), in any order and on up to `threads` threads.
template <class Body>
inline void parallel_for(int count, int threads, const Body& body) {
  struct Call {
    static void run(void* context, int i, int worker) {
      (*static_cast<const Body*>(context))(i, worker);
    }
  };
  avatar3d::run_parallel(count, threads, &Call::run, const_cast<Body*>(&body));
}

template <class T>
inline T* reserve(avatar3d::Buffer& buffer, size_t count) {
  return static_cast<T*>(avatar3d::reserve_bytes(buffer, count * sizeof(T)));
}

template <class T>
inline T* data(const avatar3d::Buffer& buffer) {
  return static_cast<T*>(buffer.data);
}

inline int chunks_of(int size, int count) { return (count + size - 1) / size; }
inline int smaller(int a, int b) { return a < b ? a : b; }
inline int larger(int a, int b) { return a > b ? a : b; }

}  // namespace
