// What the parts of the Python module share.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <stdexcept>
#include <string>

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

const Kernels& active_kernels();
int limited_threads(int threads);  // from 1 to the number that is set

void add_capture_kernels(nb::module_& m);

}  // namespace avatar3d
