// What the parts of the Python module share.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"

namespace nb = nanobind;

namespace avatar3d {

using FloatIn = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using FloatOut = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using IntIn = nb::ndarray<const int32_t, nb::c_contig, nb::device::cpu>;
using IntOut = nb::ndarray<int32_t, nb::c_contig, nb::device::cpu>;
using ByteIn = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using BytesOut = nb::ndarray<uint8_t, nb::c_contig, nb::device::cpu>;

template <class Array>
void expect(const Array& a, size_t size, const char* name) {
  if (a.size() != size)
    throw std::invalid_argument(std::string(name) + " has " + std::to_string(a.size()) +
                                " values, expected " + std::to_string(size));
}

struct Scratch {
  Buffer buffer;
  ~Scratch();
};

// A forward pass's state. Python holds it as a one-byte tensor at the address of `anchor`, which
// frees it; a copy of that tensor has another address and is simply not recognised.
struct State {
  uint8_t anchor = 0;
  std::vector<RasterState> rasters;  // one for each image
  Buffer scratch;
  Buffer posed, picture, gradient;  // of a whole face drawn at once; see module_faces.cpp
  std::mutex in_use;
  ~State();
};

std::shared_ptr<State> take_state();
void give_state(std::shared_ptr<State> state);

// What bind and bind_backward read, of `frames` poses one after the other: weights, vertices and
// both transforms have so many. The caller has checked that no corner is outside vertices.
struct Rig {
  FloatIn position, quat, log_scale, opacity, color, basis, weights, units, vertices;
  IntIn corners;
  FloatIn bary, torso_weight, head, torso;

  BindInput view(int frame = 0, int frames = 1) const;
};

void check_region(const DetailInput& in);  // throws std::invalid_argument

const Kernels& active_kernels();
int threads_to_use();
int limited_threads(int threads);  // from 1 to the number that is set

void add_capture_kernels(nb::module_& m);
void add_face_kernels(nb::module_& m);
void add_field_kernels(nb::module_& m);
void add_ray_kernels(nb::module_& m);
void add_training_kernels(nb::module_& m);

}  // namespace avatar3d
