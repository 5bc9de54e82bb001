// The radiance field's hash grid and MLP, and the Adam that trains the grid.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include "module_field.h"

namespace avatar3d {

namespace {

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
