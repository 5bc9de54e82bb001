// Rays to colours at once. The rays of a piece go forward by a few steps each; what these are worth
// is computed for all together, and rays that are through or opaque by then drop out.
#pragma once

#include "avatar3d/composite.h"
#include "hash_grid.h"
#include "march.h"
#include "mlp.h"

namespace {

using namespace avatar3d;

// Few steps a round, as most rays are through after three or four samples; many rays, so that a
// round is worth its overhead all the same.
constexpr int kRenderedSteps = 2;
constexpr int kRenderedRays = 256;
static_assert(kRenderedSteps * kRenderedRays <= kStepsOfBlock, "a round fits into a block");

// A thread's memory.
struct RenderMemory {
  StepBlock block;
  RaySteps steps[kRenderedRays];
  int next[kRenderedRays], alive[kRenderedRays];
  RaySums sums[kRenderedRays];
  float start[kRenderedRays];  // t of the first sample
  float points[3 * kStepsOfBlock], t[kStepsOfBlock];
  int32_t ray[kStepsOfBlock], frame[kStepsOfBlock];
  alignas(64) float unit[3 * kStepsOfBlock];
  alignas(64) float features[kStepsOfBlock * kMostMlpWidth];
  alignas(64) float gates[kStepsOfBlock * kMostMlpGroups + 16];
  alignas(64) float raw[4][kStepsOfBlock + 16];
  float gate_sums[kRenderedRays * kMostMlpGroups];
};

inline Lanes sigmoid_of(Lanes x) {
  const Lanes one(1.0f);
  return one / (one + exp_of(Lanes(0.0f) - x));
}

// raw becomes what passes a sample, or kUnused, and its colour.
inline void activate(const FieldInput& field, float step, int n, RenderMemory& m) {
  for (int i = 0; i < n; i += kWidth) {
    const Lanes raw(m.raw[0] + i);
    const Lanes log_density = min_of(max_of(raw + Lanes(field.log_density), Lanes(field.least)),
                                     Lanes(field.most));
    const Lanes kept = exp_of(Lanes(0.0f) - exp_of(log_density) * Lanes(step));
    // NaN is not as large as itself
    store(m.raw[0] + i, select(raw >= raw, kept, Lanes(kUnused)).v);
    for (int k = 1; k < 4; k++) store(m.raw[k] + i, sigmoid_of(Lanes(m.raw[k] + i)).v);
  }
}

// The field at n points of m, to raw and gates.
inline void look_up(const FieldInput& field, const PackedMlp& mlp, float step, int n,
                    RenderMemory& m) {
  for (int i = 0; i < n; i++)
    for (int k = 0; k < 3; k++)
      m.unit[3 * i + k] = (m.points[3 * i + k] - field.origin[k]) * field.scale;
  const int width = mlp.inputs, groups = mlp.groups;
  encode_points(field.grid, m.unit, n, m.features, width);
  if (groups) {
    encode_points(field.attention, m.unit, n, m.gates, groups);
    for (int i = 0; i < n * groups; i += kWidth)
      store(m.gates + i, sigmoid_of(Lanes(m.gates + i)).v);
  }
  const MlpPoints points = {n, m.features, groups ? m.gates : nullptr,
                            mlp.frames > 1 ? m.frame : nullptr};
  alignas(64) float out[kMlpBatch * kMlpPadding];
  for (int first = 0; first < n; first += kMlpBatch) {
    const int count = smaller(kMlpBatch, n - first);
    mlp_batch(mlp, points, first, count, m.features + (size_t)first * width, width, out);
    for (int i = 0; i < count; i++)
      for (int k = 0; k < 4; k++) m.raw[k][first + i] = out[i * kMlpPadding + k];
  }
  for (int i = n; i < n + kWidth; i++)
    for (int k = 0; k < 4; k++) m.raw[k][i] = 0.0f;
  activate(field, step, n, m);
}

inline void add_samples(const FieldInput& field, int n, float step, RenderMemory& m) {
  const int groups = field.mlp.groups;
  for (int i = 0; i < n; i++) {
    const int ray = m.ray[i];
    RaySums& sums = m.sums[ray];
    const float color[3] = {m.raw[1][i], m.raw[2][i], m.raw[3][i]};
    if (!(m.raw[0][i] < 1.0f) || sums.transmittance < field.opaque ||
        !is_finite_color(color))
      continue;
    const float w = add_sample(sums, m.raw[0][i], color, m.t[i] - m.start[ray], step);
    for (int g = 0; g < groups; g++) m.gate_sums[ray * groups + g] += w * m.gates[i * groups + g];
  }
}

// Steps of all rays that are still under way, and which remain so.
inline int collect_steps(const MarchInput& in, const FrameTable* table, float opaque, int first,
                         int alive, RenderMemory& m) {
  int remaining = 0;
  for (int a = 0; a < alive; a++) {
    const int ray = m.alive[a], frame = in.frame[first + ray];
    if (m.sums[ray].transmittance < opaque) continue;
    float t, p[3];
    int found = 0;
    for (; found < kRenderedSteps; found++, m.next[ray]++) {
      if (!next_step(in.volume, table[frame].skip, m.steps[ray], m.next[ray], t, p)) break;
      add_step(m.block, p, t, ray, frame);
    }
    if (found == kRenderedSteps) m.alive[remaining++] = ray;
  }
  return remaining;
}

inline void render_piece(const MarchInput& in, const FieldInput& field, const PackedMlp& mlp,
                         const FrameTable* table, int first, int end, RenderMemory& m) {
  int alive = 0;
  for (int ray = first; ray < end; ray++) {
    const int own = ray - first;
    m.sums[own] = RaySums();
    m.start[own] = 0.0f;
    RaySteps& steps = m.steps[own];
    if (!begin_ray(in, table[in.frame[ray]], ray, steps)) continue;
    m.next[own] = begin_bricks(in.volume, steps.first, steps);
    m.start[own] = steps.first;
    m.alive[alive++] = own;
  }
  memset(m.gate_sums, 0, sizeof m.gate_sums);
  m.block.count = 0;
  while (alive) {
    alive = collect_steps(in, table, field.opaque, first, alive, m);
    unwarp_block(in, m.block);
    int n = 0;
    for (int i = 0; i < m.block.count; i++) {
      if (!is_sample(in, m.block, i, m.points + 3 * n)) continue;
      m.t[n] = m.block.t[i], m.ray[n] = m.block.ray[i], m.frame[n] = m.block.frame[i];
      n++;
    }
    m.block.count = 0;
    if (!n) continue;
    look_up(field, mlp, in.step, n, m);
    add_samples(field, n, in.step, m);
  }
}

void render_rays(const MarchInput& in, const FieldInput& field, const RenderOutput& out,
                 Buffer& scratch, int threads) {
  const size_t packed = (packed_mlp_floats(field.mlp) + 15) / 16 * 16;
  const size_t own = (sizeof(RenderMemory) + 63) / 64 * 64;
  char* memory = reserve<char>(scratch, table_bytes(in) + sizeof(float) * packed +
                                            own * (size_t)threads);
  FrameTable* table = reinterpret_cast<FrameTable*>(memory);
  fill_table(in, table);
  memory += table_bytes(in);
  const PackedMlp mlp = pack_mlp(field.mlp, reinterpret_cast<float*>(memory));
  memory += sizeof(float) * packed;
  const int groups = mlp.groups;
  parallel_for(chunks_of(kRenderedRays, in.rays), threads, [&](int piece, int worker) {
    RenderMemory& m = *reinterpret_cast<RenderMemory*>(memory + own * (size_t)worker);
    const int first = piece * kRenderedRays, end = smaller(in.rays, first + kRenderedRays);
    render_piece(in, field, mlp, table, first, end, m);
    for (int ray = first; ray < end; ray++) {
      const RaySums& sums = m.sums[ray - first];
      for (int k = 0; k < 3; k++) out.color[3 * (size_t)ray + k] = sums.color[k];
      out.alpha[ray] = sums.mass;
      out.depth[ray] = m.start[ray - first] * sums.mass + sums.moment;
      for (int g = 0; g < groups; g++)
        out.gates[(size_t)ray * groups + g] = m.gate_sums[(ray - first) * groups + g];
    }
  });
}

}  // namespace
