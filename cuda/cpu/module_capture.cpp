// Kernels of capture: the fit's linear algebra and the filter of mattes. Called by several threads
// at a time, so they use no more threads than they are told to.
#include "lease.h"
#include "module.h"

namespace avatar3d {

namespace {

constexpr size_t kMostUnknowns = 4096;  // of a block

void normal_equations(FloatIn own, FloatIn view, FloatIn basis, FloatIn error, FloatIn strength,
                      IntIn pair, FloatOut H, FloatOut g, int threads) {
  if (own.ndim() != 4 || basis.ndim() != 3 || pair.ndim() != 2)
    throw std::invalid_argument("own must be (T, Q, 2, A), basis (Q, 3, E), pairs (P, 2)");
  const size_t frames = own.shape(0), points = own.shape(1), pairs = pair.shape(0);
  const size_t own_size = own.shape(3), basis_size = basis.shape(2), n = own_size + basis_size;
  if (n > kMostUnknowns || frames > 0x7fffff || points > 0x7fffff || pairs > 0x7fffff)
    throw std::invalid_argument("too many frames, points or unknowns");
  expect(own, frames * points * 2 * own_size, "own");
  expect(view, frames * points * 6, "view");
  expect(basis, points * 3 * basis_size, "basis");
  expect(error, frames * (points + pairs) * 2, "error");
  expect(strength, frames * (points + pairs), "strength");
  expect(pair, 2 * pairs, "pairs");
  expect(H, frames * n * n, "H");
  expect(g, frames * n, "g");
  for (size_t k = 0; k < 2 * pairs; k++)
    if (pair.data()[k] < 0 || (size_t)pair.data()[k] >= points)
      throw std::invalid_argument("pairs point outside the points");
  const NormalInput in = {(int)frames,     (int)points,     (int)pairs,  (int)own_size,
                          (int)basis_size, own.data(),      view.data(), basis.data(),
                          error.data(),    strength.data(), pair.data()};
  nb::gil_scoped_release unlocked;
  const Lease scratch;
  active_kernels().normal_equations(in, H.data(), g.data(), scratch.buffer(),
                                    limited_threads(threads));
}

// (frames, size, size) with vectors (frames, size) beside them.
BlockInput blocks_of(const FloatIn& blocks, const char* name) {
  if (blocks.ndim() != 3 || blocks.shape(1) != blocks.shape(2) || blocks.shape(1) > kMostUnknowns ||
      blocks.shape(0) > 0x7fffff)
    throw std::invalid_argument(std::string(name) + " must be (T, N, N)");
  return {(int)blocks.shape(0), (int)blocks.shape(1), blocks.data()};
}

bool factor_blocks(FloatIn H, FloatIn mask, FloatIn added, FloatOut upper, int threads) {
  const BlockInput in = blocks_of(H, "H");
  const size_t values = (size_t)in.frames * in.size;
  expect(mask, values, "mask");
  expect(added, values, "added");
  expect(upper, values * in.size, "upper");
  nb::gil_scoped_release unlocked;
  return active_kernels().factor_blocks(in, mask.data(), added.data(), upper.data(),
                                        limited_threads(threads));
}

void solve_blocks(FloatIn upper, FloatIn b, FloatOut x, int threads) {
  const BlockInput in = blocks_of(upper, "upper");
  expect(b, (size_t)in.frames * in.size, "b");
  expect(x, (size_t)in.frames * in.size, "x");
  nb::gil_scoped_release unlocked;
  active_kernels().solve_blocks(in, b.data(), x.data(), limited_threads(threads));
}

void multiply_blocks(FloatIn H, FloatIn x, FloatOut y, int threads) {
  const BlockInput in = blocks_of(H, "H");
  expect(x, (size_t)in.frames * in.size, "x");
  expect(y, (size_t)in.frames * in.size, "y");
  nb::gil_scoped_release unlocked;
  active_kernels().multiply_blocks(in, x.data(), y.data(), limited_threads(threads));
}

void guided_filter(ByteIn image, FloatIn mask, int radius, float eps, FloatOut out) {
  if (image.ndim() != 3 || image.shape(2) != 3 || image.shape(0) < 2 || image.shape(1) < 2 ||
      image.shape(0) > kLargestSide || image.shape(1) > kLargestSide)
    throw std::invalid_argument("image must be (H, W, 3), of 2 to 32768 pixels a side");
  if (radius < 2 || radius > 1024 || !(eps > 0))
    throw std::invalid_argument("radius must be from 2 to 1024 and eps above 0");
  const size_t pixels = image.shape(0) * image.shape(1);
  expect(mask, pixels, "mask");
  expect(out, pixels, "out");
  const GuidedInput in = {(int)image.shape(1), (int)image.shape(0), radius, eps,
                          image.data(),        mask.data()};
  nb::gil_scoped_release unlocked;
  const Lease scratch;
  active_kernels().guided_filter(in, out.data(), scratch.buffer());
}

}  // namespace

void add_capture_kernels(nb::module_& m) {
  m.def("normal_equations", &normal_equations);
  m.def("factor_blocks", &factor_blocks);
  m.def("solve_blocks", &solve_blocks);
  m.def("multiply_blocks", &multiply_blocks);
  m.def("guided_filter", &guided_filter);
}

}  // namespace avatar3d
