// Threads that share out numbered pieces of work and sleep in between.
//
// The caller works too and, once every piece is claimed, waits only for those still being worked
// on: a thread that a busy machine has not woken yet, or that a fork has left behind, holds nobody
// up. That is why this is not OpenMP, whose regions end when every thread has arrived.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "kernels.h"

namespace avatar3d {

class ThreadPool {
 public:
  // Calls body(context, i, worker) once for each i in [0, count). worker < threads tells the
  // threads apart; the caller is 0. When another thread is using the pool, the caller does all the
  // work.
  void run(int count, int threads, ParallelBody body, void* context);

 private:
  void work(int worker);
  bool claim(int worker, uint64_t& seen);
  void start_workers(int count);

  std::mutex in_use_;
  int workers_ = 0;

  // (job number << 32) + the next unclaimed piece. It changes when a job opens and closes, so a
  // claim by compare-and-swap can only succeed on the job that the fields below were read for.
  std::atomic<uint64_t> ticket_{kClosed};
  std::atomic<int> count_{0}, threads_{0}, done_{0};
  std::atomic<ParallelBody> body_{nullptr};
  std::atomic<void*> context_{nullptr};

  std::mutex sleep_;
  std::condition_variable work_, finished_;

  static constexpr uint64_t kClosed = 0xffffffffu;
};

// Never destroyed: its threads may outlive static destruction.
ThreadPool& thread_pool();

}  // namespace avatar3d
