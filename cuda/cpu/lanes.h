// kWidth numbers that behave as one, so that the formulas in include/ run on whole vectors.
#pragma once

#include "simd.h"

#include "avatar3d/common.h"

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

inline Lanes log2_of(Lanes a) {
  alignas(64) float x[kWidth];
  store(x, a.v);
#pragma omp simd
  for (int l = 0; l < kWidth; l++) x[l] = avatar3d::log2_of(x[l]);
  return Lanes(x);
}

}  // namespace
