// A team of threads that run one function together. Member 0 is the calling thread; the others wait between runs: they
// spin for a while, since the next step usually comes soon, then sleep in the kernel.
#pragma once
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

#include "event_count.h"

namespace mill {

// Where the members of a team run.
struct Placement {
  // CPUs that each member may run on; empty = where the system likes.
  std::vector<std::vector<int>> cpus;
  // NUMA node of each member, those of a node side by side; empty = the machine has one.
  std::vector<int> nodes;
  // The thread that makes the team is there for it alone: it is bound as member 0 while the team exists.
  bool bind_caller = false;
};

class ThreadTeam {
 public:
  // Throws Failure(out_of_memory) when the system grants no more threads.
  explicit ThreadTeam(int members, const Placement& placement = {});
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int members() const { return members_; }
  // Runs `work(member)` on every member and returns when all are done. An exception of one is thrown here; `work` must
  // then not wait at barriers that the others still expect it at.
  template <class Work>
  void run(const Work& work) {
    if (members_ == 1) return work(0);
    run_all({&work, [](const void* of, int member) { (*static_cast<const Work*>(of))(member); }});
  }
  // All members meet here; called from inside `work` by each of them.
  void barrier();

 private:
  // A std::function would be allocated anew for each run.
  struct Task {
    const void* work;
    void (*call)(const void* work, int member);
  };
  void run_all(Task task);
  void loop(int member, const std::vector<int>& cpus);
  void finish(int member);
  void end();

  const int members_;
  std::chrono::nanoseconds barrier_spin_;
  std::chrono::nanoseconds idle_spin_;
  Task task_{};
  EventCount started_;   // a run, or the end of the team
  EventCount finished_;  // a run, by members 1..
  EventCount passed_;    // a barrier
  alignas(64) std::atomic<uint32_t> running_{0};
  alignas(64) std::atomic<uint32_t> arrived_{0};
  std::atomic<bool> stop_{false};
  std::vector<int> caller_cpus_;  // to be given back; empty = it was not bound
  std::vector<std::exception_ptr> errors_;
  std::vector<std::thread> threads_;
};

}  // namespace mill
