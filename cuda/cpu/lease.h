// Scratch memory of the Python module's calls, several of which may run at a time.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "module.h"

namespace avatar3d {

// Memory that stays warm from call to call: fresh pages cost more than some of the work. Never
// destroyed, as threads may outlive the interpreter's teardown.
class Lease {
 public:
  Lease() {
    std::lock_guard<std::mutex> guard(mutex());
    if (idle().empty()) {
      own_ = std::make_unique<Scratch>();
    } else {
      own_ = std::move(idle().back());
      idle().pop_back();
    }
  }
  ~Lease() {
    std::lock_guard<std::mutex> guard(mutex());
    if (idle().size() < kKept) idle().push_back(std::move(own_));
  }
  Buffer& buffer() const { return own_->buffer; }

 private:
  static constexpr size_t kKept = 16;
  static std::mutex& mutex() {
    static std::mutex* m = new std::mutex();
    return *m;
  }
  static std::vector<std::unique_ptr<Scratch>>& idle() {
    static auto* all = new std::vector<std::unique_ptr<Scratch>>();
    return *all;
  }
  std::unique_ptr<Scratch> own_;
};

}  // namespace avatar3d
