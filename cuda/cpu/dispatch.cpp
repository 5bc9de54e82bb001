#include "dispatch.h"

#if defined(_MSC_VER) && !defined(__clang__) && defined(_M_X64)
#include <immintrin.h>
#include <intrin.h>
#endif

namespace avatar3d {

namespace {

#if defined(_MSC_VER) && !defined(__clang__) && defined(_M_X64)

// Bits of cpuid and of the register state that the operating system saves (xgetbv).
bool os_saves(unsigned long long wanted) {
  int r[4];
  __cpuid(r, 1);
  return (r[2] >> 27 & 1) && (_xgetbv(0) & wanted) == wanted;
}

bool has_avx2() {
  int one[4], seven[4];
  __cpuid(one, 1);
  __cpuidex(seven, 7, 0);
  return os_saves(0x6) && (one[2] >> 12 & 1) && (seven[1] >> 5 & 1);
}

bool has_avx512() {
  int seven[4];
  __cpuidex(seven, 7, 0);
  const unsigned b = (unsigned)seven[1];
  return os_saves(0xe6) && (b >> 16 & 1) && (b >> 17 & 1) && (b >> 30 & 1) && (b >> 31 & 1);
}

#elif defined(__x86_64__)

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

#else

bool has_avx2() { return false; }
bool has_avx512() { return false; }

#endif

}  // namespace

#ifndef A3D_HAVE_X86_BUILDS
const Kernels* kernels_avx2() { return nullptr; }
const Kernels* kernels_avx512() { return nullptr; }
#endif

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> found;
  if (has_avx512() && has_avx2() && kernels_avx512()) found.push_back(kernels_avx512());
  if (has_avx2() && kernels_avx2()) found.push_back(kernels_avx2());
  found.push_back(kernels_plain());
  return found;
}

}  // namespace avatar3d
