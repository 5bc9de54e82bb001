// Callers that share the thread pool, for the thread sanitizer: tools/sanitize.sh runs it.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "thread_pool.h"

namespace {

struct Job {
  std::vector<int> runs;  // of each piece; written without locks, as the kernels write their output
  int threads;
};

void count_run(void* context, int piece, int worker) {
  Job& job = *static_cast<Job*>(context);
  if (worker >= job.threads) std::abort();
  job.runs[(size_t)piece]++;
  volatile int work = 0;
  for (int k = 0; k < piece % 7 * 50; k++) work = work + k;
}

void call_often(unsigned random) {
  for (int call = 0; call < 6000; call++) {
    random = random * 1664525u + 1013904223u;
    Job job = {std::vector<int>((random >> 8) % 40), 1 + (int)((random >> 16) % 5)};
    avatar3d::run_parallel((int)job.runs.size(), job.threads, count_run, &job);
    for (int runs : job.runs)
      if (runs != 1) std::abort();
    // now and then long enough for the workers to fall asleep
    if (call % 1000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

int main() {
  std::vector<std::thread> callers;
  for (unsigned seed = 1; seed <= 3; seed++) callers.emplace_back(call_often, seed);
  for (std::thread& caller : callers) caller.join();
  std::puts("every piece ran once");
}
