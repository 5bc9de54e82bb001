// The radiance field's arrays as Python hands them over.
#pragma once

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>
#include <vector>

#include "module.h"

namespace avatar3d {

using Floats = std::optional<FloatIn>;

// A hash grid as avatar3d.kernels.HashGrid lays it out.
struct Grid {
  GridLayout layout = {};
  size_t entries = 0;

  Grid(int features, FloatIn scale, IntIn resolution, IntIn first, IntIn size, IntIn hashed) {
    const size_t levels = scale.size();
    if (levels < 1 || levels > 32 || features < 1 || features > 8)
      throw std::invalid_argument("levels or features out of range");
    expect(resolution, levels, "resolution"), expect(first, levels, "first");
    expect(size, levels, "size"), expect(hashed, levels, "hashed");
    layout.levels = (int)levels;
    layout.features = features;
    for (size_t l = 0; l < 32; l++) {
      const size_t from = l < levels ? l : 0;
      layout.scale[l] = l < levels ? scale.data()[l] : 0.0f;
      layout.resolution[l] = (uint32_t)resolution.data()[from];
      layout.first[l] = (uint32_t)first.data()[from];
      layout.size[l] = (uint32_t)size.data()[from];
      layout.hashed[l] = hashed.data()[from] ? ~0u : 0u;
      check_level(l);
    }
  }

  // No point may be sent beyond the table.
  void check_level(size_t l) {
    const uint64_t r = layout.resolution[l], n = layout.size[l];
    if (!(layout.scale[l] >= 0.0f && layout.scale[l] <= (float)r - 1.0f) || r < 2 || r > 32768 ||
        n > 1u << 24 || (layout.hashed[l] ? n & (n - 1) : r * r * r > n) || n < 8)
      throw std::invalid_argument("a level of the hash grid does not fit");
    if (layout.first[l] + n > entries) entries = layout.first[l] + n;
  }

  GridInput input(const FloatIn& table) const {
    expect(table, entries * (size_t)layout.features, "table");
    return {layout, table.data()};
  }
  size_t outputs() const { return (size_t)(layout.levels * layout.features); }
};

// What mlp and mlp_backward read.
struct Mlp {
  FloatIn inputs;
  std::vector<FloatIn> weights;
  std::vector<Floats> biases;
  Floats gates, vectors;
  std::optional<IntIn> rows;

  MlpInput shape() const {
    MlpInput in = {};
    if (weights.size() < 2 || weights.size() > kMostMlpLayers || biases.size() != weights.size())
      throw std::invalid_argument("number of layers out of range");
    in.layers = (int)weights.size();
    in.inputs = (int)inputs.shape(1);
    in.hidden = (int)weights[0].shape(0);
    in.outputs = (int)weights.back().shape(0);
    if (in.inputs < 1 || in.inputs > kMostMlpWidth || in.hidden < 16 ||
        in.hidden > kMostMlpWidth || in.hidden % 16 || in.outputs < 1 ||
        in.outputs > kMostMlpOutputs)
      throw std::invalid_argument("width of a layer out of range");
    for (int i = 0; i < in.layers; i++) {
      const size_t wide = (size_t)(i + 1 < in.layers ? in.hidden : in.outputs);
      expect(weights[i], wide * (size_t)(i ? in.hidden : in.inputs), "weights");
      if (biases[i]) expect(*biases[i], wide, "biases");
      in.weight[i] = weights[i].data();
      in.bias[i] = biases[i] ? biases[i]->data() : nullptr;
    }
    if (!vectors) return in;
    in.frames = (int)vectors->shape(0);
    in.groups = (int)vectors->shape(1);
    if (in.groups < 1 || in.groups > kMostMlpGroups || in.frames < 1)
      throw std::invalid_argument("number of groups or frames out of range");
    expect(*vectors, (size_t)in.frames * in.groups * in.hidden, "vectors");
    in.vectors = vectors->data();
    return in;
  }

  MlpPoints points(const MlpInput& in) const {
    const size_t n = inputs.shape(0);
    if (gates) expect(*gates, n * (size_t)in.groups, "gates");
    if (rows) {
      expect(*rows, n, "rows");
      for (size_t i = 0; i < n; i++)
        if (rows->data()[i] < 0 || rows->data()[i] >= in.frames)
          throw std::invalid_argument("rows out of range");
    }
    return {(int64_t)n, inputs.data(), gates ? gates->data() : nullptr,
            rows ? rows->data() : nullptr};
  }
};

}  // namespace avatar3d
