// A float vector and its mask, in three widths. The build defines A3D_SIMD as 512
// (AVX-512F/DQ/BW/VL), 256 (AVX2 + FMA) or 0 (plain loops, which any compiler turns into SSE2 or
// NEON). Everything lives in an unnamed namespace: the same file is compiled once per instruction
// set.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#if A3D_SIMD
#include <immintrin.h>
#endif
#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#endif

namespace {

// 1.5 2^23: a float of that size holds integers in its low bits, rounded to nearest.
constexpr float kRoundingShift = 12582912.0f;

#if A3D_SIMD == 512

constexpr int kWidth = 16;
// vmin and vmax return b when a or b is NaN, in every width.
typedef __m512 Vec;
typedef __mmask16 Mask;

inline Vec set(float a) { return _mm512_set1_ps(a); }
inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Vec a) { _mm512_storeu_ps(p, a); }
// The first n < kWidth values only; the rest of the vector is zero.
inline Vec load_part(const float* p, int n) {
  return _mm512_maskz_loadu_ps((Mask)((1 << n) - 1), p);
}
inline void store_part(float* p, Vec a, int n) {
  _mm512_mask_storeu_ps(p, (Mask)((1 << n) - 1), a);
}
inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec madd(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }    // a b + c
inline Vec nmadd(Vec a, Vec b, Vec c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a b
inline Vec vmin(Vec a, Vec b) { return _mm512_min_ps(a, b); }
inline Vec vmax(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline Vec vabs(Vec a) { return _mm512_abs_ps(a); }
inline Mask ge(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
inline Mask gt(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
inline Mask le(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
// a 2^n for an integer n, given n + kRoundingShift
inline Vec scale_by_power(Vec a, Vec shifted) {
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a),
                                              _mm512_slli_epi32(_mm512_castps_si512(shifted), 23)));
}
inline Mask both(Mask a, Mask b) { return (Mask)(a & b); }
inline Vec keep(Mask m, Vec a) { return _mm512_maskz_mov_ps(m, a); }  // m ? a : 0
inline Vec select(Mask m, Vec a, Vec b) { return _mm512_mask_mov_ps(b, m, a); }
inline bool any(Mask m) { return m != 0; }
// m ? a : -|b|
inline Vec select_or_negate(Mask m, Vec a, Vec b) {
  return _mm512_mask_or_ps(a, (Mask)~m, b, set(-0.0f));
}
inline Vec quotient(Vec a, Vec b) { return _mm512_div_ps(a, b); }
inline Vec root(Vec a) { return _mm512_sqrt_ps(a); }
inline Vec reciprocal(Vec a) {
  const Vec r = _mm512_rcp14_ps(a);
  return mul(r, nmadd(a, r, set(2.0f)));
}
inline float sum(Vec a) { return _mm512_reduce_add_ps(a); }

#elif A3D_SIMD == 256

constexpr int kWidth = 8;
typedef __m256 Vec;
typedef __m256 Mask;

inline Vec set(float a) { return _mm256_set1_ps(a); }
inline Vec load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, Vec a) { _mm256_storeu_ps(p, a); }
inline __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Vec load_part(const float* p, int n) { return _mm256_maskload_ps(p, first_lanes(n)); }
inline void store_part(float* p, Vec a, int n) { _mm256_maskstore_ps(p, first_lanes(n), a); }
inline Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
inline Vec madd(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec nmadd(Vec a, Vec b, Vec c) { return _mm256_fnmadd_ps(a, b, c); }
inline Vec vmin(Vec a, Vec b) { return _mm256_min_ps(a, b); }
inline Vec vmax(Vec a, Vec b) { return _mm256_max_ps(a, b); }
inline Vec vabs(Vec a) { return _mm256_andnot_ps(set(-0.0f), a); }
inline Mask ge(Vec a, Vec b) { return _mm256_cmp_ps(a, b, _CMP_GE_OQ); }
inline Mask gt(Vec a, Vec b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
inline Mask le(Vec a, Vec b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
inline Vec scale_by_power(Vec a, Vec shifted) {
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a),
                                              _mm256_slli_epi32(_mm256_castps_si256(shifted), 23)));
}
inline Mask both(Mask a, Mask b) { return _mm256_and_ps(a, b); }
inline Vec keep(Mask m, Vec a) { return _mm256_and_ps(m, a); }
inline Vec select(Mask m, Vec a, Vec b) { return _mm256_blendv_ps(b, a, m); }
inline bool any(Mask m) { return _mm256_movemask_ps(m) != 0; }
inline Vec select_or_negate(Mask m, Vec a, Vec b) {
  return _mm256_blendv_ps(_mm256_or_ps(b, set(-0.0f)), a, m);
}
inline Vec quotient(Vec a, Vec b) { return _mm256_div_ps(a, b); }
inline Vec root(Vec a) { return _mm256_sqrt_ps(a); }
inline Vec reciprocal(Vec a) {
  const Vec r = _mm256_rcp_ps(a);
  const Vec s = mul(r, nmadd(a, r, set(2.0f)));
  return mul(s, nmadd(a, s, set(2.0f)));
}
inline float sum(Vec a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_hadd_ps(s, s);
  s = _mm_hadd_ps(s, s);
  return _mm_cvtss_f32(s);
}

#else

#include "simd_plain.h"

#endif

// 2^p for -126 <= p <= 127 (anything else gives garbage), relative error under 2e-7: degree 5,
// fitted to the relative error on [-1/2, 1/2]. Rounding by an addition keeps the multipliers free:
// they are what the blending loops run out of.
inline Vec exp2_in_range(Vec p) {
  const Vec shifted = add(p, set(kRoundingShift));
  const Vec f = sub(p, sub(shifted, set(kRoundingShift)));
  Vec r = madd(f, set(1.32647273e-3f), set(9.67151299e-3f));
  r = madd(f, r, set(5.55073358e-2f));
  r = madd(f, r, set(2.40222424e-1f));
  r = madd(f, r, set(6.93147004e-1f));
  r = madd(f, r, set(1.0f));
  return scale_by_power(r, shifted);
}

// 2^p for p <= 127; anything below -100 counts as -100, and NaN stays NaN.
inline Vec exp2_of(Vec p) {
  p = vmax(set(-100.0f), p);
  return select(le(p, set(127.0f)), exp2_in_range(p), p);
}

// Index of the lowest set bit, which is cleared.
inline int take_lowest_bit(uint64_t& bits) {
  const uint64_t x = bits;
  bits = x & (x - 1);
#if defined(_MSC_VER) && !defined(__clang__)
  unsigned long i;
  if (_BitScanForward(&i, (unsigned long)(x & 0xffffffffu))) return (int)i;
  _BitScanForward(&i, (unsigned long)(x >> 32));
  return (int)i + 32;
#else
  return __builtin_ctzll(x);
#endif
}

inline void prefetch(const void* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p);
#else
  (void)p;
#endif
}

inline void prefetch_for_write(void* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p, 1);
#else
  (void)p;
#endif
}

}  // namespace
