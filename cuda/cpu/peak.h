// The yardstick of tools/bench.py: how many multiply-adds a second the processor can do.
#pragma once

#include "lanes.h"
#include "parallel.h"

namespace {

constexpr int kChains = 12;  // independent, to hide the latency of two units; they fit registers

// Floating-point operations done: two for each multiply-add of each lane, on every thread.
double spin_fma(int rounds, int threads, float* sink) {
  parallel_for(threads, threads, [&](int i, int) {
    Vec chains[kChains];
    for (int k = 0; k < kChains; k++) chains[k] = set((float)(i + k));
    const Vec factor = set(0.5f), term = set(1.0f);
    for (int r = 0; r < rounds; r++)
      for (int k = 0; k < kChains; k++) chains[k] = madd(chains[k], factor, term);
    for (int k = 1; k < kChains; k++) chains[0] = add(chains[0], chains[k]);
    sink[i] = sum(chains[0]);
  });
  return 2.0 * kWidth * kChains * rounds * threads;
}

}  // namespace
