// Pairs of floats: kWidth / 2 of them are a vector.
#pragma once

#include "simd.h"

namespace {

constexpr int kPairs = kWidth / 2;

#if A3D_SIMD == 512

// The pair at p, in all places.
inline Vec same_pair(const float* p) {
  double d;
  memcpy(&d, p, 8);
  return _mm512_castpd_ps(_mm512_set1_pd(d));
}
// p[0], p[0], p[1], p[1], ...
inline Vec each_twice(const float* p) {
  const __m512i order = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  return _mm512_permutexvar_ps(order, _mm512_castps256_ps512(_mm256_loadu_ps(p)));
}
inline __m128 two_pairs(const float* table, const uint32_t* entry) {
  const __m128 low = _mm_castsi128_ps(
      _mm_loadl_epi64(reinterpret_cast<const __m128i*>(table + 2 * (size_t)entry[0])));
  return _mm_loadh_pi(low, reinterpret_cast<const __m64*>(table + 2 * (size_t)entry[1]));
}
inline __m256 four_pairs(const float* table, const uint32_t* entry) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(two_pairs(table, entry)),
                              two_pairs(table, entry + 2), 1);
}
// Entries entry[0], entry[1], ... of a table of pairs. Scalar loads: gathers take longer.
inline Vec load_pairs(const float* table, const uint32_t* entry) {
  return _mm512_insertf32x8(_mm512_castps256_ps512(four_pairs(table, entry)),
                            four_pairs(table, entry + 4), 1);
}

#elif A3D_SIMD == 256

inline Vec same_pair(const float* p) {
  double d;
  memcpy(&d, p, 8);
  return _mm256_castpd_ps(_mm256_set1_pd(d));
}
inline Vec each_twice(const float* p) {
  const __m128 v = _mm_loadu_ps(p);
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_unpacklo_ps(v, v)),
                              _mm_unpackhi_ps(v, v), 1);
}
inline __m128 two_pairs(const float* table, const uint32_t* entry) {
  const __m128 low = _mm_castsi128_ps(
      _mm_loadl_epi64(reinterpret_cast<const __m128i*>(table + 2 * (size_t)entry[0])));
  return _mm_loadh_pi(low, reinterpret_cast<const __m64*>(table + 2 * (size_t)entry[1]));
}
inline Vec load_pairs(const float* table, const uint32_t* entry) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(two_pairs(table, entry)),
                              two_pairs(table, entry + 2), 1);
}

#else

inline Vec same_pair(const float* p) {
  float v[kWidth];
  for (int i = 0; i < kWidth; i++) v[i] = p[i & 1];
  return load(v);
}
inline Vec each_twice(const float* p) {
  float v[kWidth];
  for (int i = 0; i < kWidth; i++) v[i] = p[i >> 1];
  return load(v);
}
inline Vec load_pairs(const float* table, const uint32_t* entry) {
  float v[kWidth];
  for (int i = 0; i < kPairs; i++) memcpy(v + 2 * i, table + 2 * (size_t)entry[i], 8);
  return load(v);
}

#endif

inline void add_pair(float* to, const float* pair) {
#if A3D_SIMD
  __m64* p = reinterpret_cast<__m64*>(to);
  const __m128 zero = _mm_setzero_ps();
  _mm_storel_pi(p, _mm_add_ps(_mm_loadl_pi(zero, p),
                              _mm_loadl_pi(zero, reinterpret_cast<const __m64*>(pair))));
#else
  to[0] += pair[0];
  to[1] += pair[1];
#endif
}

}  // namespace
