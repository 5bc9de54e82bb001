// Volume rendering: warps, marching, compositing.
#include <nanobind/stl/optional.h>

#include <cstring>
#include <optional>

#include "lease.h"
#include "module_field.h"
#include "parallel.h"

namespace avatar3d {

namespace {

using OptionalFloats = std::optional<FloatIn>;

constexpr size_t kMostNodes = 1 << 24;  // of a lattice: their numbers are exact as floats
constexpr int kMostResolution = 512;
constexpr float kMostSteps = 4096.0f;

// nodes: (F, nz, ny, nx, 4); box: (2, 3).
Lattice lattice_of(const FloatIn& box, const float* nodes, size_t frames, size_t nz, size_t ny,
                   size_t nx) {
  expect(box, 6, "box");
  if (nz < 2 || ny < 2 || nx < 2 || nz > kMostNodes / ny / nx || frames > 0xffffff)
    throw std::invalid_argument("a lattice has fewer than 2 or too many nodes a side");
  Lattice l;
  l.nodes = nodes;
  l.size[0] = (int)nx, l.size[1] = (int)ny, l.size[2] = (int)nz;
  for (int k = 0; k < 3; k++) {
    const float low = box.data()[k], high = box.data()[3 + k];
    if (!(high > low)) throw std::invalid_argument("a box is empty");
    l.low[k] = low, l.scale[k] = (float)(l.size[k] - 1) / (high - low);
  }
  return l;
}

Lattice lattice_of(const FloatIn& box, const FloatIn& nodes) {
  if (nodes.ndim() != 5 || nodes.shape(4) != 4)
    throw std::invalid_argument("nodes must be (F, D, H, W, 4)");
  return lattice_of(box, nodes.data(), nodes.shape(0), nodes.shape(1), nodes.shape(2),
                    nodes.shape(3));
}

// A warp or the inverse of one, as Python holds it.
struct WarpArrays {
  FloatIn box, coarse;
  OptionalFloats fine_box, fine;

  int frames() const { return (int)coarse.shape(0); }

  WarpField view() const {
    WarpField w = {lattice_of(box, coarse), Lattice{}};
    if (fine) {
      if (!fine_box || fine->ndim() != 5 || fine->shape(0) != coarse.shape(0))
        throw std::invalid_argument("the fine lattice has other frames than the coarse one");
      w.fine = lattice_of(*fine_box, *fine);
    }
    return w;
  }
};

// What is NaN counts as outside of the frames too.
void check_frames(const IntIn& frames, size_t count, int limit) {
  expect(frames, count, "frames");
  for (size_t i = 0; i < count; i++)
    if (frames.data()[i] < 0 || frames.data()[i] >= limit)
      throw std::invalid_argument("frames has a number that is out of range");
}

struct VolumeArrays {
  FloatIn box;
  int resolution;
  ByteIn bits;

  Volume view() const {
    expect(box, 6, "box");
    if (resolution < 4 || resolution % 4 || resolution > kMostResolution)
      throw std::invalid_argument("resolution must be a multiple of 4");
    Volume v;
    v.resolution = resolution;
    for (int k = 0; k < 3; k++) {
      v.low[k] = box.data()[k], v.high[k] = box.data()[3 + k];
      if (!(v.high[k] > v.low[k])) throw std::invalid_argument("a box is empty");
      v.scale[k] = (float)resolution / (v.high[k] - v.low[k]);
    }
    expect(bits, bytes(), "bits");
    return v;
  }
  size_t bytes() const { return (size_t)resolution * (size_t)resolution * (size_t)resolution / 8; }
};

// Read in words of 8 bytes.
const Brick* bricks_at(const void* bytes) {
  if (reinterpret_cast<uintptr_t>(bytes) % alignof(Brick))
    throw std::invalid_argument("bits are not aligned to 8 bytes");
  return static_cast<const Brick*>(bytes);
}

void warp_nodes(FloatIn box, IntIn offsets, IntIn columns, FloatIn weights, FloatIn displacements,
                OptionalFloats taper, std::optional<FloatIn> coarse_box,
                std::optional<FloatIn> coarse, FloatOut nodes) {
  if (nodes.ndim() != 5 || nodes.shape(4) != 4 || displacements.ndim() != 3 ||
      displacements.shape(0) != nodes.shape(0) || displacements.shape(2) != 3)
    throw std::invalid_argument("nodes must be (F, D, H, W, 4), displacements (F, V, 3)");
  NodeProduct in = {};
  in.at = lattice_of(box, nodes.data(), nodes.shape(0), nodes.shape(1), nodes.shape(2),
                     nodes.shape(3));
  in.frames = (int)nodes.shape(0), in.nodes = (int)lattice_nodes(in.at);
  in.vertices = (int)displacements.shape(1);
  expect(offsets, (size_t)in.nodes + 1, "offsets");
  expect(weights, columns.size(), "weights");
  if (taper) expect(*taper, (size_t)in.nodes, "taper");
  const int32_t* o = offsets.data();
  if (o[0] != 0 || o[in.nodes] != (int32_t)columns.size())
    throw std::invalid_argument("offsets do not cover the entries");
  for (int i = 0; i < in.nodes; i++)
    if (o[i + 1] < o[i]) throw std::invalid_argument("offsets shrink");
  for (size_t i = 0; i < columns.size(); i++)
    if (columns.data()[i] < 0 || columns.data()[i] >= in.vertices)
      throw std::invalid_argument("columns has a number that is out of range");
  in.offsets = o, in.columns = columns.data(), in.weights = weights.data();
  in.displacements = displacements.data(), in.taper = taper ? taper->data() : nullptr;
  Lattice below;
  if (coarse_box && coarse) {
    below = lattice_of(*coarse_box, *coarse);
    if (coarse->shape(0) != nodes.shape(0)) throw std::invalid_argument("coarse has other frames");
    in.coarse = &below;
  }
  nb::gil_scoped_release unlocked;
  active_kernels().rays.warp_nodes(in, nodes.data(), threads_to_use());
}

// Into `inverse`, whose arrays are written to.
void invert_warp(const WarpArrays& forward, const WarpArrays& inverse) {
  const WarpField from = forward.view(), to = inverse.view();
  for (const Lattice WarpField::*l : {&WarpField::coarse, &WarpField::fine}) {
    if (!(from.*l).nodes != !(to.*l).nodes ||
        ((from.*l).nodes && lattice_nodes(from.*l) != lattice_nodes(to.*l)))
      throw std::invalid_argument("the inverse has other lattices");
  }
  if (forward.frames() != inverse.frames()) throw std::invalid_argument("other frames");
  nb::gil_scoped_release unlocked;
  active_kernels().rays.invert_warp(from, to, forward.frames(), threads_to_use());
}

void displace(const WarpArrays& warp, FloatIn points, IntIn frames, FloatOut out) {
  const size_t n = frames.size();
  expect(points, 3 * n, "points"), expect(out, 3 * n, "out");
  check_frames(frames, n, warp.frames());
  const WarpField w = warp.view();
  nb::gil_scoped_release unlocked;
  active_kernels().rays.displace(w, points.data(), frames.data(), (int64_t)n, out.data(),
                                 threads_to_use());
}

void posed_mask(const VolumeArrays& volume, const WarpArrays& warp, BytesOut mask) {
  const Volume v = volume.view();
  const WarpField w = warp.view();
  expect(mask, volume.bytes() * (size_t)warp.frames(), "mask");
  const Brick* bits = bricks_at(volume.bits.data());
  Brick* out = const_cast<Brick*>(bricks_at(mask.data()));
  nb::gil_scoped_release unlocked;
  Lease scratch;
  active_kernels().rays.posed_mask(v, bits, w, warp.frames(), out, scratch.buffer(),
                                   threads_to_use());
}

// What march and render_rays read. Without a warp there are no frames.
struct Rays {
  FloatIn origins, directions;
  IntIn frames;
  std::optional<WarpArrays> inverse;
  VolumeArrays volume;
  std::optional<ByteIn> mask;
  float step;
  OptionalFloats jitter, first, last;

  int count() const {
    if (frames.size() > 0x7fffff00) throw std::invalid_argument("too many rays");
    return (int)frames.size();
  }

  MarchInput view() const {
    const size_t rays = (size_t)count();
    expect(origins, 3 * rays, "origins"), expect(directions, 3 * rays, "directions");
    MarchInput in = {};
    in.rays = (int)rays;
    in.frames = inverse ? inverse->frames() : 1;
    check_frames(frames, rays, in.frames);
    in.volume = volume.view();
    float square = 0.0f;
    for (int k = 0; k < 3; k++) {
      const float side = in.volume.high[k] - in.volume.low[k];
      square += side * side;
    }
    if (!(step > 0.0f) || !(square < kMostSteps * step * kMostSteps * step))
      throw std::invalid_argument("step is too small for the box");
    if (jitter) expect(*jitter, rays, "jitter");
    if (!first != !last) throw std::invalid_argument("limits are given together or not at all");
    if (first) expect(*first, rays, "first"), expect(*last, rays, "last");
    if (inverse) in.inverse = inverse->view();
    if (mask) {
      if (!inverse) throw std::invalid_argument("mask is given without a warp");
      expect(*mask, volume.bytes() * (size_t)in.frames, "mask");
      in.mask = bricks_at(mask->data());
    }
    in.origins = origins.data(), in.directions = directions.data();
    in.frame = frames.data();
    in.bits = bricks_at(volume.bits.data());
    in.step = step;
    in.jitter = jitter ? jitter->data() : nullptr;
    in.first = first ? first->data() : nullptr, in.last = last ? last->data() : nullptr;
    return in;
  }
};

// Samples that wait for tensors of their number.
class Marched {
 public:
  Marched(const Marched&) = delete;
  Marched(const Rays& rays) : counts_((size_t)rays.count()), step_(rays.step) {
    const MarchInput in = rays.view();
    nb::gil_scoped_release unlocked;
    run(in);
  }

  int64_t count() const { return total_; }
  int marched() const { return marched_; }

  // The rays from the first on whose samples are at most so many.
  void limit(int64_t most) {
    total_ = 0;
    for (marched_ = 0; marched_ < (int)counts_.size(); marched_++) {
      if (total_ + counts_[marched_] > most) break;
      total_ += counts_[marched_];
    }
    if (total_ > 0x7fffffff) throw std::length_error("the rays have too many samples");
  }

  void fill(FloatOut points, FloatOut t, FloatOut dt, IntOut offsets, IntOut rays) const {
    const size_t n = (size_t)total_;
    expect(points, 3 * n, "points"), expect(t, n, "t"), expect(dt, n, "dt");
    expect(offsets, counts_.size() + 1, "offsets"), expect(rays, n, "rays");
    nb::gil_scoped_release unlocked;
    int32_t* o = offsets.data();
    o[0] = 0;
    for (int i = 0; i < (int)counts_.size(); i++) o[i + 1] = o[i] + (i < marched_ ? counts_[i] : 0);
    parallel_for((int)pieces_.size(), threads_to_use(), [&](int piece, int) {
      const float* s = static_cast<const float*>(own_[piece]->buffer().data);
      const int first = piece * kRaysOfPiece, end = smaller(marched_, first + kRaysOfPiece);
      for (int ray = first; ray < end; ray++)
        for (int64_t i = o[ray]; i < o[ray + 1]; i++, s += 4) {
          for (int k = 0; k < 3; k++) points.data()[3 * i + k] = s[k];
          t.data()[i] = s[3], dt.data()[i] = step_, rays.data()[i] = ray;
        }
    });
  }

 private:
  void run(const MarchInput& in) {
    const int pieces = chunks_of(kRaysOfPiece, in.rays);
    for (int i = 0; i < pieces; i++) own_.push_back(std::make_unique<Lease>());
    for (const auto& own : own_) pieces_.push_back({&own->buffer(), 0});
    Lease scratch;
    active_kernels().rays.march(in, pieces_.data(), counts_.data(), scratch.buffer(),
                                threads_to_use());
    limit(INT64_MAX);
  }

  std::vector<std::unique_ptr<Lease>> own_;
  std::vector<MarchPiece> pieces_;
  std::vector<int32_t> counts_;
  int64_t total_ = 0;
  int marched_ = 0;
  float step_ = 0.0f;
};

// density (3,): what is added to its logarithm, and the bounds of that.
void render_rays(const Rays& rays, const Grid& grid, FloatIn table, const Grid& attention,
                 FloatIn attention_table, const Mlp& mlp, FloatIn origin, float scale,
                 FloatIn density, float opaque, FloatOut color, FloatOut alpha, FloatOut depth,
                 FloatOut gates) {
  const MarchInput in = rays.view();
  FieldInput field = {};
  field.grid = grid.input(table), field.attention = attention.input(attention_table);
  field.mlp = mlp.shape();
  if (field.mlp.outputs != 4 || (size_t)field.mlp.inputs != grid.outputs() ||
      (field.mlp.groups && (size_t)field.mlp.groups != attention.outputs()) ||
      (field.mlp.frames > 1 && field.mlp.frames != in.frames))
    throw std::invalid_argument("the parts of the field do not fit together");
  expect(origin, 3, "origin"), expect(density, 3, "density");
  for (int k = 0; k < 3; k++) field.origin[k] = origin.data()[k];
  field.scale = scale;
  field.log_density = density.data()[0];
  field.least = density.data()[1], field.most = density.data()[2];
  field.opaque = opaque;
  const size_t n = (size_t)in.rays;
  expect(color, 3 * n, "color"), expect(alpha, n, "alpha"), expect(depth, n, "depth");
  expect(gates, n * (size_t)field.mlp.groups, "gates");
  const RenderOutput out = {color.data(), alpha.data(), depth.data(), gates.data()};
  nb::gil_scoped_release unlocked;
  Lease scratch;
  active_kernels().rays.render_rays(in, field, out, scratch.buffer(), threads_to_use());
}

CompositeInput composite_input(const FloatIn& density, const FloatIn& color, const FloatIn& extra,
                               const FloatIn& t, const FloatIn& dt, const IntIn& offsets) {
  const size_t n = density.size(), rays = offsets.size() - 1;
  if (!offsets.size() || rays > 0x7fffff00 || n > 0x7fffffff || extra.ndim() != 2)
    throw std::invalid_argument("too many rays or samples");
  const size_t channels = extra.shape(1);
  if (channels > 4096) throw std::invalid_argument("too many channels");
  expect(color, 3 * n, "color"), expect(extra, channels * n, "extra");
  expect(t, n, "t"), expect(dt, n, "dt");
  const int32_t* o = offsets.data();
  if (o[0] != 0 || o[rays] != (int32_t)n)
    throw std::invalid_argument("offsets do not cover the samples");
  for (size_t i = 0; i < rays; i++)
    if (o[i + 1] < o[i]) throw std::invalid_argument("offsets shrink");
  return {(int)rays,    (int)channels, (int64_t)n, density.data(), color.data(),
          extra.data(), t.data(),      dt.data(),  o};
}

void composite(FloatIn density, FloatIn color, FloatIn extra, FloatIn t, FloatIn dt, IntIn offsets,
               FloatOut out_color, FloatOut alpha, FloatOut depth, FloatOut distortion,
               FloatOut out_extra, FloatOut weights) {
  const CompositeInput in = composite_input(density, color, extra, t, dt, offsets);
  const size_t rays = (size_t)in.rays, channels = (size_t)in.channels;
  expect(out_color, 3 * rays, "color"), expect(alpha, rays, "alpha");
  expect(depth, rays, "depth"), expect(distortion, rays, "distortion");
  expect(out_extra, channels * rays, "extra"), expect(weights, density.size(), "weights");
  const CompositeOutput out = {out_color.data(),  alpha.data(),     depth.data(),
                               distortion.data(), out_extra.data(), weights.data()};
  nb::gil_scoped_release unlocked;
  Lease scratch;
  active_kernels().rays.composite(in, out, scratch.buffer(), threads_to_use());
}

void composite_backward(FloatIn density, FloatIn color, FloatIn extra, FloatIn t, FloatIn dt,
                        IntIn offsets, FloatIn v_color, FloatIn v_alpha, FloatIn v_depth,
                        FloatIn v_distortion, FloatIn v_extra, FloatOut g_density,
                        FloatOut g_color, FloatOut g_extra) {
  const CompositeInput in = composite_input(density, color, extra, t, dt, offsets);
  const size_t rays = (size_t)in.rays, channels = (size_t)in.channels, n = density.size();
  expect(v_color, 3 * rays, "v_color"), expect(v_alpha, rays, "v_alpha");
  expect(v_depth, rays, "v_depth"), expect(v_distortion, rays, "v_distortion");
  expect(v_extra, channels * rays, "v_extra"), expect(g_density, n, "density");
  expect(g_color, 3 * n, "color"), expect(g_extra, channels * n, "extra");
  const CompositeGradient g = {v_color.data(),      v_alpha.data(), v_depth.data(),
                               v_distortion.data(), v_extra.data(), g_density.data(),
                               g_color.data(),      g_extra.data()};
  nb::gil_scoped_release unlocked;
  Lease scratch;
  active_kernels().rays.composite_backward(in, g, scratch.buffer(), threads_to_use());
}

}  // namespace

void add_ray_kernels(nb::module_& m) {
  const auto none = [] { return nb::arg().none(); };
  nb::class_<WarpArrays>(m, "Warp").def(
      "__init__",
      [](WarpArrays* self, FloatIn box, FloatIn coarse, OptionalFloats fine_box,
         OptionalFloats fine) { new (self) WarpArrays{box, coarse, fine_box, fine}; },
      nb::arg(), nb::arg(), none(), none());
  nb::class_<VolumeArrays>(m, "Volume").def(nb::init<FloatIn, int, ByteIn>());
  m.def("warp_nodes", &warp_nodes, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), none(),
        none(), none(), nb::arg());
  m.def("invert_warp", &invert_warp);
  m.def("displace", &displace);
  m.def("posed_mask", &posed_mask);
  nb::class_<Rays>(m, "Rays").def(
      "__init__",
      [](Rays* self, FloatIn origins, FloatIn directions, IntIn frames, const WarpArrays* inverse,
         const VolumeArrays& volume, std::optional<ByteIn> mask, float step, OptionalFloats jitter,
         OptionalFloats first, OptionalFloats last) {
        std::optional<WarpArrays> warp;
        if (inverse) warp = *inverse;
        new (self) Rays{origins, directions, frames, warp, volume, mask, step, jitter, first, last};
      },
      nb::arg(), nb::arg(), nb::arg(), none(), nb::arg(), none(), nb::arg(), none(), none(),
      none());
  m.def("render_rays", &render_rays);
  nb::class_<Marched>(m, "Marched")
      .def(nb::init<const Rays&>())
      .def("count", &Marched::count)
      .def("marched", &Marched::marched)
      .def("limit", &Marched::limit)
      .def("fill", &Marched::fill);
  m.def("composite", &composite);
  m.def("composite_backward", &composite_backward);
}

}  // namespace avatar3d
