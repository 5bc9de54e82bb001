// What the kernels of the radiance field take; part of kernels.h.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace avatar3d {

// Levels of a hash grid, padded with levels of scale 0 so that they can be read in whole vectors.
// See avatar3d/hashgrid.h.
struct GridLayout {
  int levels, features;
  alignas(64) float scale[32];
  alignas(64) uint32_t resolution[32], first[32], size[32], hashed[32];  // hashed: 0 or ~0
};

struct GridInput {
  GridLayout layout;
  const float* table;  // (P, features)
};

struct GridGradient {
  const float* v_features;  // (N, levels * features)
  float* table;             // (P, features), added to, or null
  float* points;            // (N, 3), or null
};

constexpr int kMostMlpLayers = 6;
constexpr int kMostMlpWidth = 256;    // of inputs and hidden layers
constexpr int kMostMlpOutputs = 16;
constexpr int kMostMlpGroups = 16;

// (inputs) -> hidden -> ... -> hidden -> outputs, ReLU in between; H hidden, a multiple of 16.
struct MlpInput {
  int layers, inputs, hidden, outputs;
  const float* weight[kMostMlpLayers];  // (out, in) of each layer
  const float* bias[kMostMlpLayers];    // (out,), or null
  int frames, groups;                   // F and G; G is 0 without vectors
  const float* vectors;                 // (F, G, H)
};

// N points with what the frames add to their first layer.
struct MlpPoints {
  int64_t count;
  const float* inputs;   // (N, inputs)
  const float* gates;    // (N, G), or null for ones
  const int32_t* rows;   // (N,) below F, or null for 0
};

// Null ones are not computed. Those of weights, biases and vectors are written, not added to.
struct MlpGradient {
  const float* v_outputs;  // (N, outputs)
  float* inputs;           // (N, inputs)
  float* gates;            // (N, G)
  float* weight[kMostMlpLayers];
  float* bias[kMostMlpLayers];
  float* vectors;  // (F, G, H)
};

// Adam for the rows that have a gradient; see avatar3d.kernels.sparse_adam_. corrections[t] is
// 1 / (1 - beta1^t) and 1 / sqrt(1 - beta2^t) of a row's step t, or of the last for later ones.
constexpr int kMostTableColumns = 8;
struct SparseAdam {
  int64_t rows;
  int size;
  float *table, *gradient, *exp_avg, *exp_avg_sq;  // (rows, size)
  int32_t* steps;                                  // (rows,)
  const float* corrections;                        // (count, 2)
  int correction_count;
  float lr, beta1, beta2, eps;
};

}  // namespace avatar3d
