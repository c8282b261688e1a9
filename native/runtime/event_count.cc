#include "event_count.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#endif

namespace mill {
namespace {

// Looks at the value between two looks at the clock, which take longer.
constexpr int kLooks = 16;

inline void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

// Not std::atomic's wait: it yields the processor and shares its list of sleepers with all others of the process.
void sleep_while(std::atomic<uint32_t>& value, uint32_t seen) {
#if defined(__linux__)
  static_assert(sizeof(value) == sizeof(uint32_t));
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&value), FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
#else
  value.wait(seen);
#endif
}

void wake_all(std::atomic<uint32_t>& value) {
#if defined(__linux__)
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&value), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
#else
  value.notify_all();
#endif
}

}  // namespace

// Either this sees the sleeper, or the sleeper sees the new value: both are sequentially consistent.
void EventCount::signal() {
  value_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) > 0) wake_all(value_);
}

void EventCount::wait(uint32_t seen, std::chrono::nanoseconds spin) {
  if (value() != seen) return;
  if (spin.count() > 0) {
    const auto end = std::chrono::steady_clock::now() + spin;
    do {
      for (int i = 0; i < kLooks; i++) {
        if (value() != seen) return;
        relax();
      }
    } while (std::chrono::steady_clock::now() < end);
  }
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (value_.load(std::memory_order_seq_cst) == seen) sleep_while(value_, seen);
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace mill
