#include "thread_team.h"

#include <algorithm>
#include <chrono>

#include "cores.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mill {
namespace {

// How long a member spins before it sleeps: longer than it usually waits for the others at the end of an op. More would be
// paid on a busy machine, where a spinning thread uses up the time slice that the one it waits for needs.
constexpr std::chrono::microseconds kSpinTime{20};

inline void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

// A pause takes anything from 5 to 150 cycles, depending on the processor.
int spins_in(std::chrono::nanoseconds time) {
  constexpr int kSample = 200;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kSample; i++) relax();
  const auto taken = std::max<int64_t>(1, (std::chrono::steady_clock::now() - start).count());
  return static_cast<int>(std::clamp<int64_t>(time.count() * kSample / taken, 50, 20000));
}

}  // namespace

ThreadTeam::ThreadTeam(int members, bool pin) : members_(members < 1 ? 1 : members), errors_(static_cast<size_t>(members_)) {
  const std::vector<int> cores = allowed_cores();
  // With more members than cores a spinning thread keeps from running the one it waits for.
  const bool crowded = members_ > available_cores();
  spins_ = crowded ? 0 : spins_in(kSpinTime);
  const bool bind = pin && !crowded && static_cast<int>(cores.size()) >= members_;
  for (int member = 1; member < members_; member++) {
    threads_.emplace_back(&ThreadTeam::loop, this, member, bind ? cores[static_cast<size_t>(member)] : -1);
  }
}

ThreadTeam::~ThreadTeam() {
  stop_.store(true);
  generation_.fetch_add(1);
  generation_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadTeam::run(const std::function<void(int)>& work) {
  if (members_ == 1) return work(0);
  work_ = &work;
  running_.store(static_cast<uint32_t>(members_ - 1), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) > 0) generation_.notify_all();
  finish(0);
  for (int spin = 0; running_.load(std::memory_order_acquire) != 0;) {
    if (spin++ < spins_) {
      relax();
      continue;
    }
    const uint32_t left = running_.load(std::memory_order_acquire);
    if (left != 0) running_.wait(left, std::memory_order_acquire);
  }
  work_ = nullptr;
  for (std::exception_ptr& error : errors_) {
    if (error) std::rethrow_exception(std::exchange(error, nullptr));
  }
}

void ThreadTeam::finish(int member) {
  try {
    (*work_)(member);
  } catch (...) {
    errors_[static_cast<size_t>(member)] = std::current_exception();
  }
}

void ThreadTeam::loop(int member, int core) {
  if (core >= 0) bind_to_core(core);
  uint32_t seen = 0;
  for (;;) {
    for (int spin = 0; spin < spins_ && generation_.load(std::memory_order_acquire) == seen; spin++) relax();
    if (generation_.load(std::memory_order_acquire) == seen) {
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      generation_.wait(seen, std::memory_order_seq_cst);
      sleepers_.fetch_sub(1, std::memory_order_seq_cst);
      continue;
    }
    seen++;
    if (stop_.load()) return;
    finish(member);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_one();
  }
}

void ThreadTeam::barrier() {
  if (members_ == 1) return;
  const uint32_t phase = phase_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(members_)) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    phase_.notify_all();
    return;
  }
  for (int spin = 0; spin < spins_; spin++) {
    if (phase_.load(std::memory_order_acquire) != phase) return;
    relax();
  }
  while (phase_.load(std::memory_order_acquire) == phase) phase_.wait(phase, std::memory_order_acquire);
}

}  // namespace mill
