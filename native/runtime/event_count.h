// A count of events that threads wait for: they spin first, then sleep in the kernel. An event that nobody sleeps for costs
// no system call.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>

namespace mill {

class alignas(64) EventCount {
 public:
  uint32_t value() const { return value_.load(std::memory_order_acquire); }
  // One more event; what the caller wrote before is seen by who waited for it.
  void signal();
  // Returns once `value` is no longer `seen`.
  void wait(uint32_t seen, std::chrono::nanoseconds spin);

 private:
  std::atomic<uint32_t> value_{0};
  std::atomic<uint32_t> sleepers_{0};
};

}  // namespace mill
