#include "thread_pool.h"

#include <system_error>
#include <thread>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif
#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace avatar3d {

namespace {

// Looks this often before going to sleep: some 20 microseconds, the gap between two kernels of one
// operation. Longer would take the core from a neighbour.
constexpr int kSpins = 400;

void relax() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

uint32_t piece_of(uint64_t ticket) { return (uint32_t)ticket; }
uint64_t job_of(uint64_t ticket) { return ticket >> 32; }

}  // namespace

void ThreadPool::run(int count, int threads, ParallelBody body, void* context) {
  if (threads > count) threads = count;
  std::unique_lock<std::mutex> alone(in_use_, std::defer_lock);
  if (threads < 2 || !alone.try_lock()) {
    for (int i = 0; i < count; i++) body(context, i, 0);
    return;
  }
  start_workers(threads - 1);
  count_.store(count);
  threads_.store(threads);
  body_.store(body);
  context_.store(context);
  done_.store(0);
  uint64_t seen = (job_of(ticket_.load()) + 1) << 32;
  ticket_.store(seen);
  {
    std::lock_guard<std::mutex> guard(sleep_);
  }
  work_.notify_all();
  while (claim(0, seen)) {
  }
  for (int spin = 0; done_.load() != count; spin++) {
    if (spin < kSpins) {
      relax();
      continue;
    }
    std::unique_lock<std::mutex> lock(sleep_);
    finished_.wait(lock, [&] { return done_.load() == count; });
  }
  ticket_.store(ticket_.load() | kClosed);
}

// Does one piece of the job in `seen`. False when there is none left or the job is over.
bool ThreadPool::claim(int worker, uint64_t& seen) {
  seen = ticket_.load();
  for (;;) {
    const int count = count_.load();
    const ParallelBody body = body_.load();
    void* const context = context_.load();
    if (piece_of(seen) >= (uint32_t)count || worker >= threads_.load()) return false;
    if (!ticket_.compare_exchange_weak(seen, seen + 1)) continue;
    body(context, (int)piece_of(seen), worker);
    if (done_.fetch_add(1) + 1 == count) {
      std::lock_guard<std::mutex> guard(sleep_);
      finished_.notify_one();
    }
    return true;
  }
}

void ThreadPool::work(int worker) {
  uint64_t seen = ticket_.load();
  for (;;) {
    while (claim(worker, seen)) {
    }
    const uint64_t job = job_of(seen);
    bool changed = false;
    for (int spin = 0; spin < kSpins && !changed; spin++) {
      relax();
      changed = job_of(ticket_.load()) != job;
    }
    if (changed) continue;
    std::unique_lock<std::mutex> lock(sleep_);
    work_.wait(lock, [&] { return job_of(ticket_.load()) != job; });
  }
}

void ThreadPool::start_workers(int count) {
  try {
    for (; workers_ < count; workers_++)
      std::thread([this, worker = workers_ + 1] { work(worker); }).detach();
  } catch (const std::system_error&) {
    // No more threads to be had; those there are will do.
  }
}

ThreadPool& thread_pool() {
  static std::atomic<ThreadPool*> pool{new ThreadPool()};
#if !defined(_WIN32)
  // After a fork the threads are gone and the locks may be held by them: begin anew.
  static std::atomic<pid_t> owner{getpid()};
  if (owner.load() != getpid()) {
    pool.store(new ThreadPool());
    owner.store(getpid());
  }
#endif
  return *pool.load();
}

namespace {

constexpr int kMostShares = 64;

// A run of neighbouring pieces. Who is done with a share takes from the others'.
struct alignas(64) Share {
  std::atomic<int> next{0};
  int end = 0;
};

struct SharedLoop {
  Share shares[kMostShares];
  int count;
  ParallelBody body;
  void* context;

  static void run(void* self, int first, int worker) {
    SharedLoop& loop = *static_cast<SharedLoop*>(self);
    for (int k = 0; k < loop.count; k++) {
      Share& share = loop.shares[(first + k) % loop.count];
      for (int i; (i = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;)
        loop.body(loop.context, i, worker);
    }
  }
};

}  // namespace

// Every thread begins with its own part of the range, the same in every loop of this length: what
// it wrote in one is still in its cache in the next.
void run_parallel(int count, int threads, ParallelBody body, void* context) {
  if (threads > count) threads = count;
  if (threads < 2 || threads > kMostShares) return thread_pool().run(count, threads, body, context);
  SharedLoop loop;
  loop.count = threads, loop.body = body, loop.context = context;
  for (int t = 0; t < threads; t++) {
    loop.shares[t].next.store((int)((int64_t)count * t / threads), std::memory_order_relaxed);
    loop.shares[t].end = (int)((int64_t)count * (t + 1) / threads);
  }
  thread_pool().run(threads, threads, &SharedLoop::run, &loop);
}

}  // namespace avatar3d
