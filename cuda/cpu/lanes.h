// kWidth numbers that behave as one, so that the formulas in include/ run on whole vectors.
#pragma once

#include "avatar3d/common.h"
#include "parallel.h"
#include "simd.h"

namespace {

using avatar3d::max_of;
using avatar3d::min_of;

struct Lanes {
  Vec v;
  Lanes() = default;
  explicit Lanes(float a) : v(set(a)) {}
  explicit Lanes(Vec a) : v(a) {}
  explicit Lanes(const float* p) : v(load(p)) {}
};

struct LaneMask {
  Mask m;
};

inline Lanes operator+(Lanes a, Lanes b) { return Lanes(add(a.v, b.v)); }
inline Lanes operator-(Lanes a, Lanes b) { return Lanes(sub(a.v, b.v)); }
inline Lanes operator*(Lanes a, Lanes b) { return Lanes(mul(a.v, b.v)); }
inline Lanes operator/(Lanes a, Lanes b) { return Lanes(quotient(a.v, b.v)); }
inline LaneMask operator>(Lanes a, Lanes b) { return LaneMask{gt(a.v, b.v)}; }
inline LaneMask operator<(Lanes a, Lanes b) { return LaneMask{gt(b.v, a.v)}; }
inline LaneMask operator>=(Lanes a, Lanes b) { return LaneMask{ge(a.v, b.v)}; }
inline LaneMask operator<=(Lanes a, Lanes b) { return LaneMask{le(a.v, b.v)}; }
inline LaneMask operator&(LaneMask a, LaneMask b) { return LaneMask{both(a.m, b.m)}; }
inline Lanes min_of(Lanes a, Lanes b) { return Lanes(vmin(a.v, b.v)); }
inline Lanes max_of(Lanes a, Lanes b) { return Lanes(vmax(a.v, b.v)); }
inline Lanes sqrt_of(Lanes a) { return Lanes(root(a.v)); }
inline Lanes select(LaneMask c, Lanes a, Lanes b) { return Lanes(select(c.m, a.v, b.v)); }

inline Lanes exp_of(Lanes a) {
  return Lanes(exp2_of(vmin(set(127.0f), mul(a.v, set(1.4426950408889634f)))));
}

inline Lanes log2_of(Lanes a) {
  alignas(64) float x[kWidth];
  store(x, a.v);
  for (int l = 0; l < kWidth; l++) x[l] = avatar3d::log2_of(x[l]);
  return Lanes(x);
}

// Transposes rows of kColumns floats; rows past n repeat the first, so that no lane is undefined.
template <int kColumns>
inline void load_columns(const float* rows, int n, Lanes* out) {
  alignas(64) float columns[kColumns][kWidth];
  for (int l = 0; l < kWidth; l++)
    for (int k = 0; k < kColumns; k++) columns[k][l] = rows[kColumns * (l < n ? l : 0) + k];
  for (int k = 0; k < kColumns; k++) out[k] = Lanes(columns[k]);
}

template <int kColumns>
inline void store_columns(const Lanes* values, int n, float* rows) {
  alignas(64) float columns[kColumns][kWidth];
  for (int k = 0; k < kColumns; k++) store(columns[k], values[k].v);
  for (int l = 0; l < n; l++)
    for (int k = 0; k < kColumns; k++) rows[kColumns * l + k] = columns[k][l];
}

constexpr int kSums = 12;

// Horizontal sums of kSums vectors, to memory aligned to 16 bytes.
A3D_INLINE void store_sums(float* out, const Vec* v) {
#if A3D_SIMD
#if A3D_SIMD == 512
  __m256 h[kSums];
  for (int i = 0; i < kSums; i++)
    h[i] = _mm256_add_ps(_mm512_castps512_ps256(v[i]), _mm512_extractf32x8_ps(v[i], 1));
#else
  const Vec* h = v;
#endif
  for (int q = 0; q < kSums / 4; q++) {
    const __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(h[4 * q], h[4 * q + 1]),
                                    _mm256_hadd_ps(h[4 * q + 2], h[4 * q + 3]));
    _mm_store_ps(out + 4 * q, _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
  }
#else
  for (int i = 0; i < kSums; i++) out[i] = sum(v[i]);
#endif
}

}  // namespace
