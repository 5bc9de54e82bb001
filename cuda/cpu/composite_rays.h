// Volume rendering of packed samples: what light passes each is computed for kWidth samples at a
// time, the sums along the rays one sample after the other.
#pragma once

#include "avatar3d/composite.h"
#include "lanes.h"
#include "parallel.h"

namespace {

using namespace avatar3d;

constexpr int kCompositedRays = 128;  // of a piece

// Samples [begin, end) of the rays of a piece.
struct RaySpan {
  int first, last;  // rays
  int64_t begin, end;
};

inline RaySpan span_of(const CompositeInput& in, int piece) {
  const int first = piece * kCompositedRays, last = smaller(in.rays, first + kCompositedRays);
  return {first, last, in.offsets[first], in.offsets[last]};
}

inline int64_t longest_span(const CompositeInput& in) {
  int64_t longest = 0;
  for (int piece = 0; piece < chunks_of(kCompositedRays, in.rays); piece++) {
    const RaySpan s = span_of(in, piece);
    longest = s.end - s.begin > longest ? s.end - s.begin : longest;
  }
  return longest;
}

inline bool is_usable(const CompositeInput& in, int64_t i) {
  float sum = 0.0f;
  for (int c = 0; c < in.channels; c++) sum += in.extra[i * in.channels + c] * 0.0f;
  return is_finite_color(in.color + 3 * i) && sum == 0.0f;
}

constexpr float kUnused = 2.0f;  // in place of the share of light that passes

// exp(-density dt), or kUnused where the sample does not count.
inline void kept_of_span(const CompositeInput& in, const RaySpan& s, float* kept) {
  for (int64_t i = s.begin; i < s.end; i += kWidth) {
    const int n = s.end - i < kWidth ? (int)(s.end - i) : kWidth;
    const bool whole = n == kWidth;
    const Lanes density(whole ? load(in.density + i) : load_part(in.density + i, n));
    const Lanes dt(whole ? load(in.dt + i) : load_part(in.dt + i, n));
    const Lanes passed = exp_of(Lanes(0.0f) - density * dt);
    const Lanes used = select(density >= Lanes(0.0f), passed, Lanes(kUnused));
    store(kept + (i - s.begin), used.v);
  }
  for (int64_t i = s.begin; i < s.end; i++)
    if (!is_usable(in, i)) kept[i - s.begin] = kUnused;
}

inline void composite_ray(const CompositeInput& in, int ray, const float* kept,
                          const CompositeOutput& out) {
  const int64_t begin = in.offsets[ray], end = in.offsets[ray + 1];
  float* extra = out.extra + (int64_t)ray * in.channels;
  for (int c = 0; c < in.channels; c++) extra[c] = 0.0f;
  const float start = end > begin ? in.t[begin] : 0.0f;
  RaySums sums;
  int64_t i = begin;
  for (; i < end && sums.transmittance >= kStopTransmittance; i++) {
    const float k = kept[i - begin];
    out.weights[i] = 0.0f;
    if (!(k < 1.0f)) continue;
    const float w = add_sample(sums, k, in.color + 3 * i, in.t[i] - start, in.dt[i]);
    for (int c = 0; c < in.channels; c++) extra[c] += w * in.extra[i * in.channels + c];
    out.weights[i] = w;
  }
  for (; i < end; i++) out.weights[i] = 0.0f;
  for (int k = 0; k < 3; k++) out.color[3 * (int64_t)ray + k] = sums.color[k];
  out.alpha[ray] = sums.mass;
  out.depth[ray] = start * sums.mass + sums.moment;
  out.distortion[ray] = sums.distortion;
}

void composite(const CompositeInput& in, const CompositeOutput& out, Buffer& scratch,
               int threads) {
  const size_t room = (size_t)longest_span(in) + kWidth;
  float* memory = reserve<float>(scratch, room * (size_t)threads);
  parallel_for(chunks_of(kCompositedRays, in.rays), threads, [&](int piece, int worker) {
    float* kept = memory + room * worker;
    const RaySpan s = span_of(in, piece);
    kept_of_span(in, s, kept);
    for (int ray = s.first; ray < s.last; ray++)
      composite_ray(in, ray, kept + (in.offsets[ray] - s.begin), out);
  });
}

inline RayGradient gradient_at(const CompositeGradient& g, int ray) {
  RayGradient v = {{0.0f, 0.0f, 0.0f}, 0.0f, 0.0f, 0.0f};
  for (int k = 0; k < 3 && g.v_color; k++) v.color[k] = g.v_color[3 * (int64_t)ray + k];
  if (g.v_alpha) v.alpha = g.v_alpha[ray];
  if (g.v_depth) v.depth = g.v_depth[ray];
  if (g.v_distortion) v.distortion = g.v_distortion[ray];
  return v;
}

// A ray's samples in a thread's memory.
struct RayMemory {
  float *kept, *weights, *slopes, *behind;
};

// Weights up to where the ray stops, which is returned, with the share of light behind each.
inline int64_t weigh(const CompositeInput& in, int64_t begin, int64_t end, const RayMemory& m,
                     RaySums& sums) {
  const float start = in.t[begin];
  int64_t i = begin;
  for (; i < end && sums.transmittance >= kStopTransmittance; i++) {
    const int64_t at = i - begin;
    const bool drawn = m.kept[at] < 1.0f;
    m.weights[at] = drawn ? add_sample(sums, m.kept[at], in.color + 3 * i, in.t[i] - start,
                                       in.dt[i])
                          : 0.0f;
    m.behind[at] = sums.transmittance;
  }
  return i;
}

inline void composite_ray_backward(const CompositeInput& in, int ray, const RayMemory& m,
                                   const CompositeGradient& g) {
  const int64_t begin = in.offsets[ray], end = in.offsets[ray + 1];
  if (begin == end) return;
  const int channels = in.channels;
  const RayGradient v = gradient_at(g, ray);
  const float* v_extra = g.v_extra ? g.v_extra + (int64_t)ray * channels : nullptr;
  const float start = in.t[begin];
  RaySums all, before;
  const int64_t stop = weigh(in, begin, end, m, all);
  for (int64_t i = begin; i < stop; i++) {
    const float w = m.weights[i - begin], t = in.t[i] - start;
    float slope = 0.0f;
    if (m.kept[i - begin] <= 1.0f) {
      slope = weight_gradient(v, before, all.mass, all.moment, start, w, in.color + 3 * i, t,
                              in.dt[i]);
      for (int c = 0; c < channels && v_extra; c++)
        slope += v_extra[c] * in.extra[i * channels + c];
    }
    m.slopes[i - begin] = slope;
    for (int k = 0; k < 3; k++) g.color[3 * i + k] = w * v.color[k];
    for (int c = 0; c < channels; c++)
      g.extra[i * channels + c] = v_extra ? w * v_extra[c] : 0.0f;
    before.mass += w, before.moment += w * t;
  }
  float dimmed = 0.0f;  // of the gradient, what this sample takes from those behind it
  for (int64_t i = stop - 1; i >= begin; i--) {
    const int64_t at = i - begin;
    const bool used = m.kept[at] <= 1.0f;
    g.density[i] = used ? in.dt[i] * (m.behind[at] * m.slopes[at] - dimmed) : 0.0f;
    dimmed += m.weights[at] * m.slopes[at];
  }
  for (int64_t i = stop; i < end; i++) {
    g.density[i] = 0.0f;
    for (int k = 0; k < 3; k++) g.color[3 * i + k] = 0.0f;
    for (int c = 0; c < channels; c++) g.extra[i * channels + c] = 0.0f;
  }
}

void composite_backward(const CompositeInput& in, const CompositeGradient& g, Buffer& scratch,
                        int threads) {
  const size_t room = (size_t)longest_span(in) + kWidth;
  float* memory = reserve<float>(scratch, 4 * room * (size_t)threads);
  parallel_for(chunks_of(kCompositedRays, in.rays), threads, [&](int piece, int worker) {
    float* own = memory + 4 * room * worker;
    const RaySpan s = span_of(in, piece);
    kept_of_span(in, s, own);
    for (int ray = s.first; ray < s.last; ray++) {
      const int64_t at = in.offsets[ray] - s.begin;
      composite_ray_backward(in, ray,
                             {own + at, own + room + at, own + 2 * room + at, own + 3 * room + at},
                             g);
    }
  });
}

}  // namespace
