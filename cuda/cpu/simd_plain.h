// The vector of simd.h without intrinsics: GCC's and Clang's vector extension, which becomes SSE2
// or NEON, and plain loops for other compilers (or with A3D_PLAIN_LOOPS). Included by simd.h alone.
#pragma once

constexpr int kWidth = 4;  // what SSE2 and NEON hold

#if defined(__GNUC__) && !defined(A3D_PLAIN_LOOPS)

typedef float Vec __attribute__((vector_size(16)));
typedef int32_t Mask __attribute__((vector_size(16)));
typedef int64_t Pairs __attribute__((vector_size(16)));

inline Vec set(float a) { return Vec{a, a, a, a}; }
inline Vec load(const float* p) {
  Vec r;
  memcpy(&r, p, sizeof r);
  return r;
}
inline void store(float* p, Vec a) { memcpy(p, &a, sizeof a); }
inline Vec load_part(const float* p, int n) {
  Vec r = set(0.0f);
  memcpy(&r, p, sizeof(float) * (size_t)n);
  return r;
}
inline void store_part(float* p, Vec a, int n) { memcpy(p, &a, sizeof(float) * (size_t)n); }
inline Vec add(Vec a, Vec b) { return a + b; }
inline Vec sub(Vec a, Vec b) { return a - b; }
inline Vec mul(Vec a, Vec b) { return a * b; }
inline Vec quotient(Vec a, Vec b) { return a / b; }
inline Vec madd(Vec a, Vec b, Vec c) { return a * b + c; }
inline Vec nmadd(Vec a, Vec b, Vec c) { return c - a * b; }
inline Mask ge(Vec a, Vec b) { return a >= b; }
inline Mask gt(Vec a, Vec b) { return a > b; }
inline Mask le(Vec a, Vec b) { return a <= b; }
inline Mask both(Mask a, Mask b) { return a & b; }
inline Vec select(Mask m, Vec a, Vec b) { return (Vec)((m & (Mask)a) | (~m & (Mask)b)); }
inline Vec keep(Mask m, Vec a) { return (Vec)(m & (Mask)a); }
inline Vec vmin(Vec a, Vec b) { return select(a < b, a, b); }
inline Vec vmax(Vec a, Vec b) { return select(a > b, a, b); }
inline Vec vabs(Vec a) { return (Vec)((Mask)a & 0x7fffffff); }
inline Vec select_or_negate(Mask m, Vec a, Vec b) {
  return select(m, a, (Vec)((Mask)b | (Mask)set(-0.0f)));
}
inline bool any(Mask m) {
  const Pairs p = (Pairs)m;
  return (p[0] | p[1]) != 0;
}
inline float lane(Vec a, int i) { return a[i]; }
inline int32_t lane(Mask a, int i) { return a[i]; }
inline Vec root(Vec a) {
  Vec r = a;
  for (int i = 0; i < kWidth; i++) r[i] = sqrtf(a[i]);
  return r;
}
inline Vec reciprocal(Vec a) { return 1.0f / a; }
inline float sum(Vec a) { return (a[0] + a[2]) + (a[1] + a[3]); }
inline Vec scale_by_power(Vec a, Vec shifted) { return (Vec)((Mask)a + ((Mask)shifted << 23)); }

#else

struct Vec {
  float v[kWidth];
};
struct Mask {
  int32_t v[kWidth];  // 0 or -1
};

#define A3D_LANES for (int i = 0; i < kWidth; i++)
inline Vec set(float a) {
  Vec r;
  A3D_LANES r.v[i] = a;
  return r;
}
inline Vec load(const float* p) {
  Vec r;
  A3D_LANES r.v[i] = p[i];
  return r;
}
inline void store(float* p, const Vec& a) { A3D_LANES p[i] = a.v[i]; }
inline Vec load_part(const float* p, int n) {
  Vec r;
  A3D_LANES r.v[i] = i < n ? p[i] : 0.0f;
  return r;
}
inline void store_part(float* p, const Vec& a, int n) {
  for (int i = 0; i < n; i++) p[i] = a.v[i];
}
#define A3D_BINARY(NAME, TYPE, EXPRESSION)       \
  inline TYPE NAME(const Vec& a, const Vec& b) { \
    TYPE r;                                      \
    A3D_LANES r.v[i] = EXPRESSION;               \
    return r;                                    \
  }
A3D_BINARY(add, Vec, a.v[i] + b.v[i])
A3D_BINARY(sub, Vec, a.v[i] - b.v[i])
A3D_BINARY(mul, Vec, a.v[i] * b.v[i])
A3D_BINARY(quotient, Vec, a.v[i] / b.v[i])
A3D_BINARY(vmin, Vec, a.v[i] < b.v[i] ? a.v[i] : b.v[i])
A3D_BINARY(vmax, Vec, a.v[i] > b.v[i] ? a.v[i] : b.v[i])
A3D_BINARY(ge, Mask, -(int32_t)(a.v[i] >= b.v[i]))
A3D_BINARY(gt, Mask, -(int32_t)(a.v[i] > b.v[i]))
A3D_BINARY(le, Mask, -(int32_t)(a.v[i] <= b.v[i]))
#undef A3D_BINARY
inline Vec madd(const Vec& a, const Vec& b, const Vec& c) {
  Vec r;
  A3D_LANES r.v[i] = a.v[i] * b.v[i] + c.v[i];
  return r;
}
inline Vec nmadd(const Vec& a, const Vec& b, const Vec& c) {
  Vec r;
  A3D_LANES r.v[i] = c.v[i] - a.v[i] * b.v[i];
  return r;
}
inline float lane(const Vec& a, int i) { return a.v[i]; }
inline int32_t lane(const Mask& a, int i) { return a.v[i]; }
inline Vec root(const Vec& a) {
  Vec r;
  A3D_LANES r.v[i] = sqrtf(a.v[i]);
  return r;
}
inline Vec vabs(const Vec& a) {
  Vec r;
  A3D_LANES r.v[i] = fabsf(a.v[i]);
  return r;
}
inline Mask both(const Mask& a, const Mask& b) {
  Mask r;
  A3D_LANES r.v[i] = a.v[i] & b.v[i];
  return r;
}
inline Vec select(const Mask& m, const Vec& a, const Vec& b) {
  Vec r;
  A3D_LANES r.v[i] = m.v[i] ? a.v[i] : b.v[i];
  return r;
}
inline Vec keep(const Mask& m, const Vec& a) { return select(m, a, set(0.0f)); }
inline bool any(const Mask& m) {
  int32_t r = 0;
  A3D_LANES r |= m.v[i];
  return r != 0;
}
inline Vec select_or_negate(const Mask& m, const Vec& a, const Vec& b) {
  Vec r;
  A3D_LANES r.v[i] = m.v[i] ? a.v[i] : -fabsf(b.v[i]);
  return r;
}
inline Vec reciprocal(const Vec& a) {
  Vec r;
  A3D_LANES r.v[i] = 1.0f / a.v[i];
  return r;
}
inline float sum(const Vec& a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
inline Vec scale_by_power(const Vec& a, const Vec& shifted) {
  Vec r;
  A3D_LANES {
    uint32_t bits, power;
    memcpy(&bits, &a.v[i], 4);
    memcpy(&power, &shifted.v[i], 4);
    bits += power << 23;
    memcpy(&r.v[i], &bits, 4);
  }
  return r;
}
#undef A3D_LANES

#endif
