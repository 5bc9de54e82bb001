// Runs the kernels of a .cu file on a CPU, so that they can be tested without a GPU.
//
// The threads of a block are fibers of one OS thread: each runs until a barrier or a shuffle, then
// the next one. What a GPU leaves to chance is made to show: shared memory starts each block as
// NaN, the order of the threads can be changed, and a barrier that not all threads of the block
// reach, or reach at different lines, is an error.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <random>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("cuda_shared")))
#define __syncthreads() emulation::barrier(emulation::kBlock, __LINE__)
#define __shfl_xor_sync(mask, value, lane) emulation::shuffle_xor(mask, value, lane, __LINE__)

// The linker's bounds of that section; null where a file has no shared memory.
extern char __start_cuda_shared[] __attribute__((weak));
extern char __stop_cuda_shared[] __attribute__((weak));

struct dim3 {
  unsigned x, y, z;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

enum Wait { kRunning, kWarp, kBlock, kDone };

struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  Wait wait;
  int line;
  float lane_value;
};

static ucontext_t scheduler;
static std::vector<Fiber> fibers;
static int current;
static std::string error;

inline void barrier(Wait kind, int line) {
  fibers[current].wait = kind, fibers[current].line = line;
  swapcontext(&fibers[current].context, &scheduler);
}

inline float shuffle_xor(unsigned mask, float value, int lane, int line) {
  if (mask != 0xffffffffu) error = "a shuffle leaves lanes out";
  fibers[current].lane_value = value;
  barrier(kWarp, line);
  const float other = fibers[current ^ lane].lane_value;
  barrier(kWarp, -line);  // nobody writes again before all have read
  return other;
}

// All fibers of [begin, end) wait in the same place for the same thing?
inline bool together(int begin, int end, Wait kind) {
  for (int i = begin; i < end; i++)
    if (fibers[i].wait != kind) return false;
  for (int i = begin; i < end; i++)
    if (fibers[i].line != fibers[begin].line)
      error = "threads meet at lines " + std::to_string(fibers[begin].line) + " and " +
              std::to_string(fibers[i].line);
  return true;
}

inline bool release(int begin, int end, Wait kind) {
  if (!together(begin, end, kind)) return false;
  for (int i = begin; i < end; i++) fibers[i].wait = kRunning;
  return true;
}

template <class Body>
void run_block(int threads, const std::vector<int>& order, const Body& body) {
  static const Body* now;
  now = &body;
  memset(__start_cuda_shared, 0xff, __stop_cuda_shared - __start_cuda_shared);
  fibers.resize(threads);
  for (Fiber& f : fibers) {
    f.stack.resize(1 << 16);
    f.wait = kRunning;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.data();
    f.context.uc_stack.ss_size = f.stack.size();
    f.context.uc_link = nullptr;
    makecontext(&f.context, +[] {
      (*now)();
      barrier(kDone, 0);
    }, 0);
  }
  while (error.empty()) {
    for (int i : order) {
      if (fibers[i].wait != kRunning) continue;
      current = i;
      threadIdx = {(unsigned)i, 0, 0};
      swapcontext(&scheduler, &fibers[i].context);
    }
    if (together(0, threads, kDone)) return;
    bool progress = release(0, threads, kBlock);
    for (int w = 0; w < threads; w += 32)
      progress |= release(w, w + 32 < threads ? w + 32 : threads, kWarp);
    if (!progress && error.empty()) error = "a barrier is not reached by all threads";
  }
}

// order: 0 as numbered, 1 backwards, others shuffled by that seed.
inline std::vector<int> order_of(int threads, int order) {
  std::vector<int> result(threads);
  for (int i = 0; i < threads; i++) result[i] = order == 1 ? threads - 1 - i : i;
  std::mt19937 random(order);
  for (int i = threads - 1; order > 1 && i > 0; i--) std::swap(result[i], result[random() % (i + 1)]);
  return result;
}

template <class... A, size_t... I>
void launch(void (*kernel)(A...), dim3 grid, int threads, void** arguments, int order,
            std::index_sequence<I...>) {
  const std::tuple<A...> values(*static_cast<A*>(arguments[I])...);
  const std::vector<int> sequence = order_of(threads, order);
  gridDim = grid, blockDim = {(unsigned)threads, 1, 1};
  for (unsigned y = 0; y < grid.y && error.empty(); y++)
    for (unsigned x = 0; x < grid.x && error.empty(); x++) {
      blockIdx = {x, y, 0};
      run_block(threads, sequence, [&] { kernel(std::get<I>(values)...); });
    }
}

// Null when all went well, otherwise what went wrong.
template <class... A>
const char* start(void (*kernel)(A...), unsigned x, unsigned y, int threads, void** arguments,
                  int order) {
  error.clear();
  launch(kernel, dim3{x, y, 1}, threads, arguments, order, std::index_sequence_for<A...>());
  return error.empty() ? nullptr : error.c_str();
}

}  // namespace emulation

inline float atomicAdd(float* address, float value) {
  const float before = *address;
  *address += value;
  return before;
}
