// The radiance field's hash grid and MLP, and the Adam that trains the grid.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <optional>

#include "module.h"

namespace avatar3d {

namespace {

using Floats = std::optional<FloatIn>;
using FloatsOut = std::optional<FloatOut>;

Scratch& grid_scratch() {
  static Scratch* s = new Scratch();
  return *s;
}
Scratch& mlp_scratch() {
  static Scratch* s = new Scratch();
  return *s;
}
std::mutex& field_in_use() {
  static std::mutex* m = new std::mutex();
  return *m;
}

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

void encode(const Grid& grid, FloatIn points, FloatIn table, FloatOut out) {
  const GridInput in = grid.input(table);
  const size_t n = points.size() / 3;
  expect(points, 3 * n, "points"), expect(out, n * grid.outputs(), "features");
  nb::gil_scoped_release unlocked;
  active_kernels().hash_encode(in, points.data(), (int64_t)n, out.data(), threads_to_use());
}

void encode_backward(const Grid& grid, FloatIn points, FloatIn table, FloatIn v_features,
                     FloatsOut v_table, FloatsOut v_points) {
  const GridInput in = grid.input(table);
  const size_t n = points.size() / 3;
  expect(points, 3 * n, "points"), expect(v_features, n * grid.outputs(), "v_features");
  if (v_table) expect(*v_table, table.size(), "v_table");
  if (v_points) expect(*v_points, 3 * n, "v_points");
  const GridGradient out = {v_features.data(), v_table ? v_table->data() : nullptr,
                            v_points ? v_points->data() : nullptr};
  nb::gil_scoped_release unlocked;
  std::lock_guard<std::mutex> guard(field_in_use());
  active_kernels().hash_encode_backward(in, points.data(), (int64_t)n, out, grid_scratch().buffer,
                                        threads_to_use());
}

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

void mlp(const Mlp& in, FloatOut out) {
  const MlpInput shape = in.shape();
  const MlpPoints points = in.points(shape);
  expect(out, (size_t)points.count * shape.outputs, "outputs");
  nb::gil_scoped_release unlocked;
  std::lock_guard<std::mutex> guard(field_in_use());
  active_kernels().mlp_forward(shape, points, out.data(), mlp_scratch().buffer, threads_to_use());
}

void mlp_backward(const Mlp& in, FloatIn v_outputs, FloatsOut v_inputs,
                  std::vector<FloatsOut> v_weights, std::vector<FloatsOut> v_biases,
                  FloatsOut v_gates, FloatsOut v_vectors) {
  const MlpInput shape = in.shape();
  const MlpPoints points = in.points(shape);
  const size_t n = (size_t)points.count;
  expect(v_outputs, n * shape.outputs, "v_outputs");
  if (v_weights.size() != in.weights.size() || v_biases.size() != in.weights.size())
    throw std::invalid_argument("number of gradients");
  if (v_inputs) expect(*v_inputs, in.inputs.size(), "v_inputs");
  if (v_gates) expect(*v_gates, n * (size_t)shape.groups, "v_gates");
  if (v_vectors) expect(*v_vectors, in.vectors ? in.vectors->size() : 0, "v_vectors");
  MlpGradient out = {};
  out.v_outputs = v_outputs.data();
  out.inputs = v_inputs ? v_inputs->data() : nullptr;
  out.gates = v_gates ? v_gates->data() : nullptr;
  out.vectors = v_vectors ? v_vectors->data() : nullptr;
  for (int i = 0; i < shape.layers; i++) {
    if (v_weights[i]) expect(*v_weights[i], in.weights[i].size(), "v_weights");
    if (v_biases[i]) expect(*v_biases[i], in.weights[i].shape(0), "v_biases");
    out.weight[i] = v_weights[i] ? v_weights[i]->data() : nullptr;
    out.bias[i] = v_biases[i] ? v_biases[i]->data() : nullptr;
  }
  nb::gil_scoped_release unlocked;
  std::lock_guard<std::mutex> guard(field_in_use());
  active_kernels().mlp_backward(shape, points, out, mlp_scratch().buffer, threads_to_use());
}

void adam(FloatOut table, FloatOut gradient, FloatOut exp_avg, FloatOut exp_avg_sq, IntOut steps,
          FloatIn corrections, float lr, float beta1, float beta2, float eps) {
  const size_t rows = steps.size(), size = rows ? table.size() / rows : 1;
  if (size < 1 || size > (size_t)kMostTableColumns)
    throw std::invalid_argument("columns of table out of range");
  expect(table, rows * size, "table"), expect(gradient, rows * size, "gradient");
  expect(exp_avg, rows * size, "exp_avg"), expect(exp_avg_sq, rows * size, "exp_avg_sq");
  if (corrections.size() < 4) throw std::invalid_argument("corrections are missing");
  const SparseAdam in = {(int64_t)rows,     (int)size,         table.data(),
                         gradient.data(),   exp_avg.data(),    exp_avg_sq.data(),
                         steps.data(),      corrections.data(), (int)(corrections.size() / 2),
                         lr,                beta1,             beta2,
                         eps};
  nb::gil_scoped_release unlocked;
  active_kernels().sparse_adam(in, threads_to_use());
}

}  // namespace

void add_field_kernels(nb::module_& m) {
  const auto none = [] { return nb::arg().none(); };
  nb::class_<Grid>(m, "Grid").def(nb::init<int, FloatIn, IntIn, IntIn, IntIn, IntIn>());
  m.def("hash_encode", &encode);
  m.def("hash_encode_backward", &encode_backward, nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        none(), none());
  nb::class_<Mlp>(m, "Mlp").def(nb::init<FloatIn, std::vector<FloatIn>, std::vector<Floats>, Floats,
                                         Floats, std::optional<IntIn>>(),
                                nb::arg(), nb::arg(), nb::arg(), none(), none(), none());
  m.def("mlp", &mlp);
  m.def("mlp_backward", &mlp_backward, nb::arg(), nb::arg(), none(), nb::arg(), nb::arg(), none(),
        none());
  m.def("sparse_adam", &adam);
}

}  // namespace avatar3d
