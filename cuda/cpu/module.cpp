// The Python module avatar3d.kernels._native: array views in, table calls, no torch headers.
#include "module.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <stdexcept>
#include <unordered_map>

#include "dispatch.h"

#ifdef A3D_ADDRESS_SANITIZER  // tools/sanitize.sh
#include <sanitizer/asan_interface.h>
#endif

namespace avatar3d {

namespace {

constexpr size_t kAlignment = 64;

void* aligned_new(size_t bytes) { return ::operator new(bytes, std::align_val_t(kAlignment)); }
void aligned_delete(void* p) { ::operator delete(p, std::align_val_t(kAlignment)); }

void release(Buffer& b) {
  if (b.data) aligned_delete(b.data);
  b = Buffer();
}

// Hands out states with warm memory: fresh pages cost more than the sort.
class StatePool {
 public:
  std::shared_ptr<State> take() {
    std::lock_guard<std::mutex> guard(mutex_);
    if (idle_.empty()) return std::make_shared<State>();
    std::shared_ptr<State> s = std::move(idle_.back());
    idle_.pop_back();
    return s;
  }
  void give(std::shared_ptr<State> s) {
    std::lock_guard<std::mutex> guard(mutex_);
    if (idle_.size() < kKept) idle_.push_back(std::move(s));
  }
  void publish(const std::shared_ptr<State>& s) {
    std::lock_guard<std::mutex> guard(mutex_);
    live_[&s->anchor] = s;
  }
  void retire(const void* anchor) {
    std::lock_guard<std::mutex> guard(mutex_);
    const auto it = live_.find(anchor);
    if (it == live_.end()) return;
    // a backward that still runs holds a reference; then the memory goes with it
    if (it->second.use_count() == 1 && idle_.size() < kKept) idle_.push_back(it->second);
    live_.erase(it);
  }
  std::shared_ptr<State> find(const void* anchor) {
    std::lock_guard<std::mutex> guard(mutex_);
    const auto it = live_.find(anchor);
    return it == live_.end() ? nullptr : it->second;
  }

 private:
  static constexpr size_t kKept = 8;
  std::mutex mutex_;
  std::vector<std::shared_ptr<State>> idle_;
  std::unordered_map<const void*, std::shared_ptr<State>> live_;
};

// Never destroyed: tensors that outlive the interpreter's teardown may still retire their state.
StatePool& pool() {
  static StatePool* p = new StatePool();
  return *p;
}

struct Settings {
  const Kernels* kernels = available_kernels().front();
  int threads = 1;
};

Settings& settings() {
  static Settings s;
  return s;
}

using ByteOut = nb::ndarray<nb::pytorch, uint8_t, nb::shape<1>, nb::c_contig, nb::device::cpu>;

// B images of N Gaussians. Every tensor has a leading dimension, B or, where the images share
// it, 1.
struct Scene {
  FloatIn means, quats, scales, opacities, colors, viewmat, intrinsics, background;
  int images, width, height;

  size_t count() const { return opacities.shape(1); }
  size_t pixels() const { return (size_t)width * (size_t)height; }

  void check() const {
    const size_t n = count(), b = (size_t)images;
    if (images < 1 || width < 1 || height < 1 || width > 65535 * 16 || height > 65535 * 16 ||
        n > 0x7ffffff0 || b * ((n + 255) / 256 + pixels() / 64 + 1) > 0x7ffffff0)
      throw std::invalid_argument("image or scene size out of range");
    expect_shared(means, 3 * n, "means");
    expect_shared(quats, 4 * n, "quats");
    expect_shared(scales, 3 * n, "scales");
    expect_shared(opacities, n, "opacities");
    expect_shared(colors, 3 * n, "colors");
    expect_shared(viewmat, 16, "viewmat");
    expect_shared(intrinsics, 9, "K");
    expect_shared(background, background.ndim() == 4 ? 3 * pixels() : 3, "background");
  }

  void expect_shared(const FloatIn& a, size_t size, const char* name) const {
    expect(a, a.shape(0) == 1 ? size : size * (size_t)images, name);
  }

  const float* of(const FloatIn& a, int image) const {
    return a.data() + (a.shape(0) == 1 ? 0 : a.size() / (size_t)images * (size_t)image);
  }

  RasterInput view(int i) const {
    return RasterInput{(int)count(),      of(means, i),           of(quats, i),   of(scales, i),
                       of(opacities, i),  of(colors, i),          of(viewmat, i), of(intrinsics, i),
                       of(background, i), background.ndim() == 4, width,          height};
  }
};

// The part of an output that belongs to one image, or null.
float* part(const std::optional<FloatOut>& a, size_t size, int image) {
  return a ? a->data() + size * (size_t)image : nullptr;
}
const float* part(const std::optional<FloatIn>& a, size_t size, int image) {
  return a ? a->data() + size * (size_t)image : nullptr;
}

ByteOut rasterize(const Scene& scene, FloatOut image, FloatOut alpha, std::optional<FloatOut> depth,
                  FloatOut radii) {
  scene.check();
  const size_t n = scene.count(), pixels = scene.pixels(), b = (size_t)scene.images;
  expect(image, 3 * pixels * b, "image");
  expect(alpha, pixels * b, "alpha");
  if (depth) expect(*depth, pixels * b, "depth");
  expect(radii, n * b, "radii");
  std::vector<RasterInput> in;
  std::vector<RasterOutput> out;
  for (int i = 0; i < scene.images; i++) {
    in.push_back(scene.view(i));
    out.push_back({image.data() + 3 * pixels * i, alpha.data() + pixels * i, part(depth, pixels, i),
                   radii.data() + n * i});
  }
  std::shared_ptr<State> state = pool().take();
  {
    nb::gil_scoped_release unlocked;
    if (state->rasters.size() < b) state->rasters.resize(b);
    if (!settings().kernels->rasterize(in.data(), out.data(), state->rasters.data(), scene.images,
                                       settings().threads))
      throw std::invalid_argument(
          "background is not finite; expected numbers without NaN or infinity.");
  }
  pool().publish(state);
  nb::capsule owner(&state->anchor, [](void* anchor) noexcept { pool().retire(anchor); });
  return ByteOut(&state->anchor, {1}, owner);
}

// Every gradient has a leading dimension B. False when the state is unknown: the tensor was copied,
// so the caller must run the forward again.
bool rasterize_backward(const Scene& scene, ByteIn token, FloatIn v_image,
                        std::optional<FloatIn> v_alpha, std::optional<FloatIn> v_depth,
                        FloatIn image, FloatIn alpha, FloatIn depth, FloatOut means, FloatOut quats,
                        FloatOut scales, FloatOut opacities, FloatOut colors,
                        std::optional<FloatOut> viewmat, std::optional<FloatOut> background,
                        std::optional<FloatOut> mean2d) {
  const std::shared_ptr<State> state = pool().find(token.data());
  if (!state) return false;
  scene.check();
  const size_t n = scene.count(), pixels = scene.pixels(), b = (size_t)scene.images;
  const size_t background_size = scene.background.ndim() == 4 ? 3 * pixels : 3;
  if (state->rasters.size() < b) throw std::invalid_argument("the state is of fewer images");
  expect(v_image, 3 * pixels * b, "v_image");
  if (v_alpha) expect(*v_alpha, pixels * b, "v_alpha");
  if (v_depth) expect(*v_depth, pixels * b, "v_depth");
  expect(image, 3 * pixels * b, "image");
  expect(alpha, pixels * b, "alpha");
  if (v_depth) expect(depth, pixels * b, "depth");
  expect(means, 3 * n * b, "v_means");
  expect(quats, 4 * n * b, "v_quats");
  expect(scales, 3 * n * b, "v_scales");
  expect(opacities, n * b, "v_opacities");
  expect(colors, 3 * n * b, "v_colors");
  if (viewmat) expect(*viewmat, 16 * b, "v_viewmat");
  if (background) expect(*background, background_size * b, "v_background");
  if (mean2d) expect(*mean2d, 2 * n * b, "v_mean2d");
  std::vector<RasterInput> in;
  std::vector<RasterGradient> grad;
  for (int i = 0; i < scene.images; i++) {
    in.push_back(scene.view(i));
    grad.push_back({v_image.data() + 3 * pixels * i, part(v_alpha, pixels, i),
                    part(v_depth, pixels, i), image.data() + 3 * pixels * i,
                    alpha.data() + pixels * i, v_depth ? depth.data() + pixels * i : nullptr,
                    means.data() + 3 * n * i, quats.data() + 4 * n * i, scales.data() + 3 * n * i,
                    opacities.data() + n * i, colors.data() + 3 * n * i, part(viewmat, 16, i),
                    part(background, background_size, i), part(mean2d, 2 * n, i)});
  }
  nb::gil_scoped_release unlocked;
  std::lock_guard<std::mutex> guard(state->in_use);
  settings().kernels->rasterize_backward(in.data(), grad.data(), state->rasters.data(),
                                         scene.images, settings().threads);
  return true;
}

double l1_ssim(FloatIn image, FloatIn target, std::optional<FloatIn> weight, float l1_factor,
               float ssim_factor, std::optional<FloatOut> gradient) {
  if (image.ndim() != 3 || image.shape(2) != 3 || image.shape(0) > 0xfffff ||
      image.shape(1) > 0xfffff || image.size() == 0)
    throw std::invalid_argument("image must have shape (H, W, 3)");
  expect(target, image.size(), "target");
  if (weight) expect(*weight, image.size() / 3, "weight");
  if (gradient) expect(*gradient, image.size(), "gradient");
  const SsimInput in = {image.data(),        target.data(),       weight ? weight->data() : nullptr,
                        (int)image.shape(1), (int)image.shape(0), l1_factor,
                        ssim_factor, nullptr};
  nb::gil_scoped_release unlocked;
  std::shared_ptr<State> state = pool().take();
  const double loss = settings().kernels->l1_ssim(in, gradient ? gradient->data() : nullptr,
                                                  state->scratch, settings().threads);
  pool().give(std::move(state));
  return loss;
}

double detail(FloatIn image, FloatIn target, std::optional<FloatIn> weight, int top, int left,
              int bottom, int right, float factor, FloatOut gradient) {
  if (image.ndim() != 3 || image.shape(2) != 3 || image.shape(0) > 0xfffff ||
      image.shape(1) > 0xfffff)
    throw std::invalid_argument("image must have shape (H, W, 3)");
  const int height = (int)image.shape(0), width = (int)image.shape(1);
  expect(target, image.size(), "target");
  if (weight) expect(*weight, image.size() / 3, "weight");
  expect(gradient, image.size(), "gradient");
  const DetailInput in = {image.data(), target.data(), weight ? weight->data() : nullptr,
                          width,        height,        top,
                          left,         bottom,        right,
                          factor,       false};
  check_region(in);
  nb::gil_scoped_release unlocked;
  std::shared_ptr<State> state = pool().take();
  const double loss =
      settings().kernels->detail(in, gradient.data(), state->scratch, settings().threads);
  pool().give(std::move(state));
  return loss;
}

void rasterize_mesh(FloatIn points, IntIn faces, int width, int height, IntOut face, FloatOut bary,
                    FloatOut depth) {
  if (width < 1 || height < 1) throw std::invalid_argument("width and height must be positive");
  const size_t pixels = (size_t)width * (size_t)height;
  expect(face, pixels, "face");
  expect(bary, 3 * pixels, "bary");
  expect(depth, pixels, "depth");
  const size_t vertices = points.size() / 3, triangles = faces.size() / 3;
  if (vertices > 0x7ffffff0 || triangles > 0x7ffffff0)
    throw std::invalid_argument("mesh size out of range");
  for (size_t i = 0; i < 3 * triangles; i++)
    if (faces.data()[i] < 0 || (size_t)faces.data()[i] >= vertices)
      throw std::invalid_argument("faces points outside points");
  const MeshInput in = {(int)vertices, (int)triangles, points.data(), faces.data(), width, height};
  nb::gil_scoped_release unlocked;
  settings().kernels->rasterize_mesh(in, face.data(), bary.data(), depth.data(),
                                     settings().threads);
}

void bind(const Rig& rig, FloatOut means, FloatOut quats, FloatOut scales, FloatOut opacities,
          FloatOut colors) {
  const BindInput in = rig.view();
  const size_t n = (size_t)in.count;
  expect(means, 3 * n, "means");
  expect(quats, 4 * n, "quats");
  expect(scales, 3 * n, "scales");
  expect(opacities, n, "opacities");
  expect(colors, 3 * n, "colors");
  const BindOutput out = {means.data(), quats.data(), scales.data(), opacities.data(),
                          colors.data()};
  nb::gil_scoped_release unlocked;
  settings().kernels->bind(in, out, settings().threads);
}

using Wanted = std::optional<FloatOut>;

float* wanted(const Wanted& a, size_t size, const char* name) {
  if (!a) return nullptr;
  expect(*a, size, name);
  return a->data();
}

void bind_backward(const Rig& rig, FloatIn v_means, FloatIn v_quats, FloatIn v_scales,
                   FloatIn v_opacities, FloatIn v_colors, Wanted position, Wanted quat,
                   Wanted log_scale, Wanted opacity, Wanted color, Wanted basis, Wanted blend,
                   Wanted weights, Wanted vertices, Wanted head, Wanted torso) {
  const BindInput in = rig.view();
  const size_t n = (size_t)in.count;
  expect(v_means, 3 * n, "v_means");
  expect(v_quats, 4 * n, "v_quats");
  expect(v_scales, 3 * n, "v_scales");
  expect(v_opacities, n, "v_opacities");
  expect(v_colors, 3 * n, "v_colors");
  if (!position != !quat || !position != !log_scale || !position != !opacity ||
      !position != !color || !head != !torso || ((basis || blend || weights) && !position))
    throw std::invalid_argument("gradients that belong together must be asked for together");
  const BindGradient grad = {v_means.data(),
                             v_quats.data(),
                             v_scales.data(),
                             v_opacities.data(),
                             v_colors.data(),
                             wanted(position, 3 * n, "position"),
                             wanted(quat, 4 * n, "quat"),
                             wanted(log_scale, 3 * n, "log_scale"),
                             wanted(opacity, n, "opacity"),
                             wanted(color, 3 * n, "color"),
                             wanted(basis, rig.basis.size(), "basis"),
                             wanted(blend, 10 * (size_t)in.with_basis, "blend"),
                             wanted(weights, rig.weights.size(), "weights"),
                             wanted(vertices, rig.vertices.size(), "vertices"),
                             wanted(head, 16, "T_head"),
                             wanted(torso, 16, "T_torso")};
  nb::gil_scoped_release unlocked;
  std::shared_ptr<State> state = pool().take();
  settings().kernels->bind_backward(in, grad, state->scratch, settings().threads);
  pool().give(std::move(state));
}

void outer_adamw(FloatOut parameter, FloatOut exp_avg, FloatOut exp_avg_sq, FloatIn row_gradients,
                 FloatIn weights, double keep, double beta1, double beta2, double rate,
                 double inverse_root, double eps) {
  if (weights.ndim() != 2 || !weights.shape(1) || weights.shape(1) > kLargestOuterSize ||
      weights.shape(0) > 0xffff)
    throw std::invalid_argument("weights must be (F, K) with K from 1 to " +
                                std::to_string(kLargestOuterSize));
  const size_t frames = weights.shape(0), size = weights.shape(1), rows = parameter.size() / size;
  expect(parameter, rows * size, "parameter");
  expect(exp_avg, rows * size, "exp_avg");
  expect(exp_avg_sq, rows * size, "exp_avg_sq");
  expect(row_gradients, frames * rows, "row_gradients");
  const OuterAdamW in = {(int64_t)rows,  (int)size,
                         (int)frames,    row_gradients.data(),
                         weights.data(), parameter.data(),
                         exp_avg.data(), exp_avg_sq.data(),
                         keep,           beta1,
                         beta2,          rate,
                         inverse_root,   eps};
  nb::gil_scoped_release unlocked;
  settings().kernels->outer_adamw(in, settings().threads);
}

// Floating-point operations a second of nothing but multiply-adds, over some milliseconds.
double fma_rate() {
  std::vector<float> sink((size_t)settings().threads);
  nb::gil_scoped_release unlocked;
  const auto start = std::chrono::steady_clock::now();
  const double done = settings().kernels->spin_fma(4000000, settings().threads, sink.data());
  return done / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void decode_pixels(ByteIn bytes, std::optional<ByteIn> matte, std::optional<FloatIn> color,
                   FloatOut out) {
  if (bytes.ndim() != 3 || bytes.shape(2) != 3 || bytes.shape(0) > 65536 * 16 ||
      bytes.shape(1) > 65536 * 16)
    throw std::invalid_argument("bytes must be (H, W, 3)");
  const size_t pixels = bytes.shape(0) * bytes.shape(1);
  if (!matte != !color) throw std::invalid_argument("matte and color belong together");
  if (matte) expect(*matte, pixels, "matte");
  if (color) expect(*color, 3, "color");
  expect(out, 3 * pixels, "out");
  const PixelInput in = {(int)bytes.shape(1), (int)bytes.shape(0), bytes.data(),
                         matte ? matte->data() : nullptr, color ? color->data() : nullptr};
  nb::gil_scoped_release unlocked;
  settings().kernels->decode_pixels(in, out.data(), settings().threads);
}

void encode_pixels(FloatIn values, BytesOut bytes) {
  expect(bytes, values.size(), "bytes");
  nb::gil_scoped_release unlocked;
  settings().kernels->encode_pixels(values.data(), (int64_t)values.size(), bytes.data(),
                                    settings().threads);
}

std::vector<std::string> simd_levels() {
  std::vector<std::string> names;
  for (const Kernels* k : available_kernels()) names.push_back(k->name);
  return names;
}

void set_simd(const std::string& name) {
  for (const Kernels* k : available_kernels())
    if (name == k->name) {
      settings().kernels = k;
      return;
    }
  throw std::invalid_argument("no such build on this processor: " + name);
}

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#elif defined(_MSC_VER)
  return "msvc " + std::to_string(_MSC_VER);
#else
  return "unknown";
#endif
}

}  // namespace

State::~State() {
  for (RasterState& r : rasters)
    for (Buffer* b : {&r.splats, &r.rects, &r.slot_in_chunk, &r.chunk_slots, &r.tile_start, &r.list,
                      &r.mask, &r.slots, &r.depths, &r.keys, &r.keys2, &r.order, &r.order2,
                      &r.sorted, &r.sorts, &r.corners, &r.next, &r.partial, &r.finite})
      release(*b);
  for (Buffer* b : {&scratch, &posed, &picture, &gradient}) release(*b);
}

std::shared_ptr<State> take_state() { return pool().take(); }
void give_state(std::shared_ptr<State> state) { pool().give(std::move(state)); }

BindInput Rig::view(int frame, int frames) const {
  const size_t n = opacity.size(), bound = corners.size() / 3, f = (size_t)frames;
  const size_t k = weights.size() / f, v = vertices.size() / (3 * f), i = (size_t)frame;
  const size_t with_basis = k ? basis.size() / (10 * k) : 0;
  if (n > 0x7ffffff0 || bound > n || with_basis > n || k > 0xffff || v > 0x7ffffff0)
    throw std::invalid_argument("more bound or blended Gaussians than there are");
  expect(position, 3 * n, "position");
  expect(quat, 4 * n, "quat");
  expect(log_scale, 3 * n, "log_scale");
  expect(color, 3 * n, "color");
  expect(basis, 10 * k * with_basis, "basis");
  expect(weights, k * f, "weights");
  expect(units, 10, "units");
  expect(vertices, 3 * v * f, "vertices");
  expect(bary, 3 * bound, "bary");
  expect(torso_weight, n, "torso_weight");
  expect(head, 16 * f, "T_head");
  expect(torso, 16 * f, "T_torso");
  return BindInput{(int)n,
                   (int)bound,
                   (int)with_basis,
                   (int)k,
                   (int)v,
                   position.data(),
                   quat.data(),
                   log_scale.data(),
                   opacity.data(),
                   color.data(),
                   basis.data(),
                   weights.data() + k * i,
                   units.data(),
                   vertices.data() + 3 * v * i,
                   corners.data(),
                   bary.data(),
                   torso_weight.data(),
                   head.data() + 16 * i,
                   torso.data() + 16 * i};
}

void check_region(const DetailInput& in) {
  if (in.top < 0 || in.left < 0 || in.bottom > in.height || in.right > in.width ||
      in.bottom - in.top < 9 || in.right - in.left < 9)
    throw std::invalid_argument("the region must be inside the image and larger than a patch");
}

const Kernels& active_kernels() { return *settings().kernels; }

int threads_to_use() { return settings().threads; }

int limited_threads(int threads) {
  return threads < 1 ? 1 : (threads < settings().threads ? threads : settings().threads);
}

Scratch::~Scratch() { release(buffer); }

void* reserve_bytes(Buffer& buffer, size_t bytes) {
  if (bytes > buffer.capacity || !buffer.data) {
    release(buffer);
    const size_t capacity = bytes + bytes / 4 + 256;
    buffer.data = aligned_new(capacity);
    buffer.capacity = capacity;
  }
#ifdef A3D_ADDRESS_SANITIZER
  // what is kept in reserve is out of bounds
  __asan_unpoison_memory_region(buffer.data, bytes);
  __asan_poison_memory_region(static_cast<char*>(buffer.data) + bytes, buffer.capacity - bytes);
#endif
  return buffer.data;
}

void throw_too_many_entries() {
  throw std::length_error("the Gaussians cover too many image tiles: are their scales in range?");
}

NB_MODULE(_native, m) {
  m.doc() = "CPU kernels of avatar3d; use them through avatar3d.kernels.";
  nb::class_<Scene>(m, "Scene")
      .def(nb::init<FloatIn, FloatIn, FloatIn, FloatIn, FloatIn, FloatIn, FloatIn, FloatIn, int,
                    int, int>());
  const auto none = [] { return nb::arg().none(); };
  m.def("rasterize", &rasterize, nb::arg(), nb::arg(), nb::arg(), none(), nb::arg());
  m.def("rasterize_backward", &rasterize_backward, nb::arg(), nb::arg(), nb::arg(), none(), none(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        none(), none(), none());
  m.def("l1_ssim", &l1_ssim, nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(),
        nb::arg().none());
  m.def("detail", &detail, nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg());
  m.def("rasterize_mesh", &rasterize_mesh);
  nb::class_<Rig>(m, "Rig").def(
      nb::init<FloatIn, FloatIn, FloatIn, FloatIn, FloatIn, FloatIn, FloatIn, FloatIn, FloatIn,
               IntIn, FloatIn, FloatIn, FloatIn, FloatIn>());
  m.def("bind", &bind);
  m.def("bind_backward", &bind_backward, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg(), none(), none(), none(), none(), none(), none(), none(), none(), none(), none(),
        none());
  m.def("outer_adamw", &outer_adamw);
  m.def("decode_pixels", &decode_pixels, nb::arg(), none(), none(), nb::arg());
  m.def("encode_pixels", &encode_pixels);
  add_capture_kernels(m);
  add_face_kernels(m);
  add_field_kernels(m);
  add_ray_kernels(m);
  add_training_kernels(m);
  m.def("fma_rate", &fma_rate);
  m.def("simd_levels", &simd_levels);
  m.def("simd", [] { return std::string(settings().kernels->name); });
  m.def("set_simd", &set_simd);
  m.def("threads", [] { return settings().threads; });
  m.def("set_threads", [](int n) { settings().threads = n < 1 ? 1 : (n > 256 ? 256 : n); });
  m.def("compiler", &compiler);
}

}  // namespace avatar3d
