// Small helpers shared by every kernel. No standard header is included, so that NVRTC can compile
// these files; a CPU translation unit includes <math.h> before them.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define A3D_HD static __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define A3D_HD static __forceinline
#else
// `static` matters: the CPU builds compile these once per instruction set, and a merged out-of-line
// copy could run AVX-512 code on a machine that has none.
#define A3D_HD static inline __attribute__((always_inline))
#endif

// A table that the GPU may index too.
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define A3D_CONSTANT static __constant__ const
#else
#define A3D_CONSTANT constexpr
#endif

namespace avatar3d {

// The maths is written over a number type: float on a GPU, a vector of lanes on a CPU. These are
// the operations a number type has besides + - * / and comparisons whose results combine with &.
A3D_HD float min_of(float a, float b) { return a < b ? a : b; }
A3D_HD float max_of(float a, float b) { return a > b ? a : b; }
A3D_HD float sqrt_of(float a) { return sqrtf(a); }
A3D_HD float select(bool condition, float a, float b) { return condition ? a : b; }

A3D_HD int bits_of(float x) {
  union {
    float f;
    int i;
  } u;
  u.f = x;
  return u.i;
}

A3D_HD float float_of(int bits) {
  union {
    float f;
    int i;
  } u;
  u.i = bits;
  return u.f;
}

// log2 of a positive normal number, absolute error under 1.3e-7 near 1 and 1 ulp elsewhere. Written
// out because a call to logf keeps compilers from vectorising the projection.
A3D_HD float log2_of(float x) {
  // m in [sqrt(1/2), sqrt(2)), x = m 2^e
  const int bits = bits_of(x);
  const int shifted = (int)((unsigned)bits - 0x3f3504f3u);  // wraps for negative x, no matter
  const int e = shifted >> 23;
  const float m = float_of((int)((unsigned)bits - ((unsigned)e << 23)));
  // log(m) = 2 atanh(s), s = (m - 1) / (m + 1), |s| < 0.1716
  const float s = (m - 1.0f) / (m + 1.0f);
  const float z = s * s;
  float p = 0.2222222222f + z * 0.1818181818f;
  p = 0.2857142857f + z * p;
  p = 0.4f + z * p;
  p = 0.6666666667f + z * p;
  const float log_m = 2.0f * s + s * z * p;
  return (float)e + log_m * 1.4426950408889634f;
}

}  // namespace avatar3d
