// A team of threads that run one function together. Member 0 is the calling thread; the others wait between runs: they
// spin for a moment, since the next step usually comes at once, then sleep in the kernel.
#pragma once
#include <atomic>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

namespace mill {

class ThreadTeam {
 public:
  // `pin`: bind members 1.. to cores of the process's own affinity mask, when there is a core for each member.
  ThreadTeam(int members, bool pin);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int members() const { return members_; }
  // Runs `work(member)` on every member and returns when all are done. An exception of one is thrown here; `work` must
  // then not wait at barriers that the others still expect it at.
  void run(const std::function<void(int)>& work);
  // All members meet here; called from inside `work` by each of them.
  void barrier();

 private:
  void loop(int member, int core);
  void finish(int member);

  const int members_;
  int spins_;
  const std::function<void(int)>* work_ = nullptr;
  alignas(64) std::atomic<uint32_t> generation_{0};
  alignas(64) std::atomic<uint32_t> running_{0};
  alignas(64) std::atomic<uint32_t> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
  alignas(64) std::atomic<uint32_t> sleepers_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::exception_ptr> errors_;
  std::vector<std::thread> threads_;
};


}  // namespace mill
