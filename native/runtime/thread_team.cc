#include "thread_team.h"

#include <string>
#include <system_error>
#include <utility>

#include "cores.h"
#include "failure.h"

namespace mill {
namespace {

// Longer than members usually wait for each other at the end of an op. More would be paid on a busy machine, where a
// spinning thread uses up the time slice that the one it waits for needs.
constexpr std::chrono::microseconds kBarrierSpin{20};
// Longer than usually passes between two runs of steps in a row: waking a thread takes some 50 us on virtual machines.
constexpr std::chrono::microseconds kIdleSpin{200};

}  // namespace

ThreadTeam::ThreadTeam(int members, const Placement& placement) : members_(members < 1 ? 1 : members), errors_(static_cast<size_t>(members_)) {
  // With more members than cores a spinning thread keeps from running the one it waits for.
  const bool crowded = members_ > available_cores();
  barrier_spin_ = crowded ? std::chrono::nanoseconds{0} : kBarrierSpin;
  idle_spin_ = crowded ? std::chrono::nanoseconds{0} : kIdleSpin;
  const std::vector<int> anywhere;
  const auto cpus = [&](int member) -> const std::vector<int>& {
    return placement.cpus.empty() ? anywhere : placement.cpus[static_cast<size_t>(member)];
  };
  try {
    for (int member = 1; member < members_; member++) threads_.emplace_back(&ThreadTeam::loop, this, member, cpus(member));
  } catch (const std::system_error& error) {
    end();
    throw Failure("out_of_memory", "Cannot start " + std::to_string(members_) + " threads: " + error.what() + ".");
  }
  // Last: threads begin with the CPUs of who makes them.
  if (!placement.bind_caller || cpus(0).empty()) return;
  caller_cpus_ = thread_cpus();
  bind_thread(cpus(0));
}

ThreadTeam::~ThreadTeam() {
  end();
  if (!caller_cpus_.empty()) bind_thread(caller_cpus_);
}

void ThreadTeam::end() {
  stop_.store(true);
  started_.signal();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadTeam::run_all(Task task) {
  task_ = task;
  running_.store(static_cast<uint32_t>(members_ - 1), std::memory_order_relaxed);
  const uint32_t finished = finished_.value();
  started_.signal();
  finish(0);
  finished_.wait(finished, barrier_spin_);
  for (std::exception_ptr& error : errors_) {
    if (error) std::rethrow_exception(std::exchange(error, nullptr));
  }
}

void ThreadTeam::finish(int member) {
  try {
    task_.call(task_.work, member);
  } catch (...) {
    errors_[static_cast<size_t>(member)] = std::current_exception();
  }
}

void ThreadTeam::loop(int member, const std::vector<int>& cpus) {
  if (!cpus.empty()) bind_thread(cpus);
  for (uint32_t seen = 0;; seen++) {
    started_.wait(seen, idle_spin_);
    if (stop_.load()) return;
    finish(member);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) finished_.signal();
  }
}

void ThreadTeam::barrier() {
  if (members_ == 1) return;
  const uint32_t passed = passed_.value();
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 < static_cast<uint32_t>(members_)) return passed_.wait(passed, barrier_spin_);
  arrived_.store(0, std::memory_order_relaxed);
  passed_.signal();
}

}  // namespace mill
