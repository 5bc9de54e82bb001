// Whole faces, one or several: posed, drawn, compared and differentiated without a detour through
// through torch. Each face is one thread's work, so nothing waits between the steps and no step is
// too small to share out.
#include <nanobind/stl/array.h>
#include <nanobind/stl/pair.h>

#include <exception>

#include "module.h"

namespace avatar3d {

namespace {

// A camera at the origin, which looks along z, and what is behind the Gaussians.
struct View {
  FloatIn intrinsics, background;
  int width, height;

  size_t pixels() const { return (size_t)width * (size_t)height; }

  void check() const {
    if (width < 1 || height < 1 || width > 65535 || height > 65535)
      throw std::invalid_argument("image size out of range");
    expect(intrinsics, 9, "K");
    expect(background, background.ndim() == 3 ? 3 * pixels() : 3, "background");
  }
};

constexpr float kIdentity[16] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};

// What `bind` gives and `rasterize` takes, or the gradients there, in one piece of memory.
constexpr int kPosedFloats = 15;  // means 3, quats 4, scales 3, opacity, colors 3, radius

BindOutput posed_at(Buffer& buffer, size_t n) {
  float* p = static_cast<float*>(reserve_bytes(buffer, sizeof(float) * kPosedFloats * n));
  return BindOutput{p, p + 3 * n, p + 7 * n, p + 10 * n, p + 11 * n};
}

RasterInput scene_of(const View& view, const BindOutput& posed, int count) {
  return RasterInput{count,
                     posed.means,
                     posed.quats,
                     posed.scales,
                     posed.opacities,
                     posed.colors,
                     kIdentity,
                     view.intrinsics.data(),
                     view.background.data(),
                     view.background.ndim() == 3,
                     view.width,
                     view.height};
}

// One face with the memory and the threads it may use.
struct Drawing {
  const Kernels& kernels;
  const View& view;
  State& state;
  int threads;

  BindOutput posed{};
  RasterInput scene{};
  float *image = nullptr, *alpha = nullptr;

  void draw(const BindInput& in) {
    const size_t n = (size_t)in.count, pixels = view.pixels();
    if (state.rasters.empty()) state.rasters.resize(1);
    posed = posed_at(state.posed, n);
    image = static_cast<float*>(reserve_bytes(state.picture, sizeof(float) * 7 * pixels));
    alpha = image + 3 * pixels;
    kernels.bind(in, posed, threads);
    scene = scene_of(view, posed, in.count);
    const RasterOutput out = {image, alpha, nullptr, posed.colors + 3 * n};
    if (!kernels.rasterize(&scene, &out, state.rasters.data(), 1, threads))
      throw std::invalid_argument(
          "background is not finite; expected numbers without NaN or infinity.");
  }

  // The loss against a picture; its gradient goes to where v_image() is.
  double compare(const float* target, const float* weight, float l1_factor, float ssim_factor,
                 bool where_drawn) {
    const SsimInput pair = {
        image,       target,    weight,      view.width,
        view.height, l1_factor, ssim_factor, where_drawn ? &state.rasters[0] : nullptr};
    return kernels.l1_ssim(pair, v_image(), state.scratch, threads);
  }

  float* v_image() const { return alpha + view.pixels(); }

  // From v_image() to the gradients at what `bind` took.
  void differentiate(const BindInput& in, BindGradient at_rig) {
    const BindOutput v = posed_at(state.gradient, (size_t)in.count);
    const RasterGradient at_posed = {v_image(), nullptr, nullptr, image,    alpha,
                                     nullptr,   v.means, v.quats, v.scales, v.opacities,
                                     v.colors,  nullptr, nullptr, nullptr};
    kernels.rasterize_backward(&scene, &at_posed, state.rasters.data(), 1, threads);
    at_rig.v_means = v.means, at_rig.v_quats = v.quats, at_rig.v_scales = v.scales;
    at_rig.v_opacities = v.opacities, at_rig.v_colors = v.colors;
    kernels.bind_backward(in, at_rig, state.scratch, threads);
  }
};

// Calls work(drawing, frame) for every frame, each on one thread unless there is only one.
template <class Work>
void for_frames(int frames, const View& view, const Work& work) {
  const int all = threads_to_use();
  std::vector<std::shared_ptr<State>> states;
  for (int t = 0; t < (frames < all ? frames : all); t++) states.push_back(take_state());
  std::exception_ptr failure;
  std::mutex failing;
  auto one = [&](int frame, int worker) {
    try {
      Drawing drawing{active_kernels(), view, *states[(size_t)worker], frames == 1 ? all : 1};
      work(drawing, frame);
    } catch (...) {  // must not leave a thread of the pool
      std::lock_guard<std::mutex> guard(failing);
      failure = std::current_exception();
    }
  };
  struct Call {
    static void run(void* context, int i, int worker) {
      (*static_cast<decltype(one)*>(context))(i, worker);
    }
  };
  run_parallel(frames, all, &Call::run, &one);
  for (auto& state : states) give_state(std::move(state));
  if (failure) std::rethrow_exception(failure);
}

std::vector<BindInput> faces_of(const Rig& rig, size_t frames) {
  if (frames < 1 || frames > 0xffff) throw std::invalid_argument("too few or too many faces");
  std::vector<BindInput> faces;
  for (size_t i = 0; i < frames; i++) faces.push_back(rig.view((int)i, (int)frames));
  return faces;
}

void draw_faces(const Rig& rig, FloatIn intrinsics, FloatIn background, BytesOut pictures) {
  if (pictures.ndim() != 4 || pictures.shape(3) != 3)
    throw std::invalid_argument("pictures must have shape (F, H, W, 3)");
  const View view = {intrinsics, background, (int)pictures.shape(2), (int)pictures.shape(1)};
  view.check();
  const std::vector<BindInput> faces = faces_of(rig, pictures.shape(0));
  const size_t size = 3 * view.pixels();
  nb::gil_scoped_release unlocked;
  for_frames((int)faces.size(), view, [&](Drawing& drawing, int frame) {
    drawing.draw(faces[(size_t)frame]);
    drawing.kernels.encode_pixels(drawing.image, (int64_t)size,
                                  pictures.data() + size * (size_t)frame, drawing.threads);
  });
}

void face_gradients(const Rig& rig, FloatIn intrinsics, FloatIn background, FloatIn targets,
                    FloatIn weights, float l1_factor, float ssim_factor, FloatOut losses,
                    FloatOut v_vertices, FloatOut v_head, FloatOut v_torso) {
  if (targets.ndim() != 4 || targets.shape(3) != 3)
    throw std::invalid_argument("targets must have shape (F, H, W, 3)");
  const View view = {intrinsics, background, (int)targets.shape(2), (int)targets.shape(1)};
  view.check();
  const size_t frames = targets.shape(0), pixels = view.pixels();
  const std::vector<BindInput> faces = faces_of(rig, frames);
  expect(weights, frames * pixels, "weights");
  expect(losses, frames, "losses");
  expect(v_vertices, rig.vertices.size(), "v_vertices");
  expect(v_head, 16 * frames, "v_head");
  expect(v_torso, 16 * frames, "v_torso");
  const size_t floats = rig.vertices.size() / frames;
  nb::gil_scoped_release unlocked;
  for_frames((int)frames, view, [&](Drawing& drawing, int frame) {
    const size_t i = (size_t)frame;
    drawing.draw(faces[i]);
    losses.data()[i] =
        (float)drawing.compare(targets.data() + 3 * pixels * i, weights.data() + pixels * i,
                               l1_factor, ssim_factor, false);
    BindGradient at_rig = {};
    at_rig.vertices = v_vertices.data() + floats * i;
    at_rig.head = v_head.data() + 16 * i, at_rig.torso = v_torso.data() + 16 * i;
    drawing.differentiate(faces[i], at_rig);
  });
}

// One face's losses against a picture and the gradients at its attributes: of the picture where
// Gaussians were drawn and, where `region` has a size, of the detail in it.
std::pair<double, double> attribute_gradients(const Rig& rig, FloatIn intrinsics,
                                              FloatIn background, FloatIn target, FloatIn weight,
                                              float l1_factor, float ssim_factor,
                                              std::array<int, 4> region, float detail_factor,
                                              FloatOut position, FloatOut quat, FloatOut log_scale,
                                              FloatOut opacity, FloatOut color, FloatOut blend,
                                              FloatOut v_weights) {
  if (target.ndim() != 3 || target.shape(2) != 3)
    throw std::invalid_argument("target must have shape (H, W, 3)");
  const View view = {intrinsics, background, (int)target.shape(1), (int)target.shape(0)};
  view.check();
  const BindInput in = rig.view();
  const size_t n = (size_t)in.count;
  expect(weight, view.pixels(), "weight");
  expect(position, 3 * n, "position"), expect(quat, 4 * n, "quat");
  expect(log_scale, 3 * n, "log_scale"), expect(opacity, n, "opacity");
  expect(color, 3 * n, "color");
  if (blend.size()) expect(blend, 10 * (size_t)in.with_basis, "blend");
  expect(v_weights, rig.weights.size(), "weights");
  const DetailInput fine = {nullptr,     target.data(), weight.data(), view.width,
                            view.height, region[0],     region[1],     region[2],
                            region[3],   detail_factor, true};
  if (detail_factor != 0) check_region(fine);
  BindGradient at_rig = {};
  at_rig.position = position.data(), at_rig.quat = quat.data();
  at_rig.log_scale = log_scale.data(), at_rig.opacity = opacity.data();
  at_rig.color = color.data();
  if (blend.size()) at_rig.blend = blend.data();
  if (v_weights.size()) at_rig.weights = v_weights.data();
  double picture = 0, detail = 0;
  nb::gil_scoped_release unlocked;
  for_frames(1, view, [&](Drawing& drawing, int) {
    drawing.draw(in);
    picture = drawing.compare(target.data(), weight.data(), l1_factor, ssim_factor, true);
    if (detail_factor != 0) {
      DetailInput seen = fine;
      seen.image = drawing.image;
      detail =
          drawing.kernels.detail(seen, drawing.v_image(), drawing.state.scratch, drawing.threads);
    }
    drawing.differentiate(in, at_rig);
  });
  return {picture, detail};
}

}  // namespace

void add_face_kernels(nb::module_& m) {
  m.def("draw_faces", &draw_faces);
  m.def("face_gradients", &face_gradients);
  m.def("attribute_gradients", &attribute_gradients);
}

}  // namespace avatar3d
