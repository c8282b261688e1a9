// Which member touches which pages of a weight, and what the system does with them.
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "../runtime/cores.h"
#include "../runtime/numa.h"
#include "../runtime/pack.h"
#include "test.h"

namespace mill::test {
namespace {

TEST("numa: members touch every page once, and mostly what they read") {
  const int64_t page = sysconf(_SC_PAGESIZE);
  for (const int members : {1, 2, 3, 8, 64}) {
    for (const int64_t panel_bytes : {int64_t{64}, int64_t{1152}, page, 5 * page + 64}) {
      for (const int64_t panels : {int64_t{1}, int64_t{7}, int64_t{96}, int64_t{1000}}) {
        const int64_t bytes = panels * panel_bytes + 192;
        int64_t at = 0;
        for (int member = 0; member < members; member++) {
          const Range own = pages_of_share(panels, panel_bytes, bytes, member, members), share = share_of(panels, member, members);
          check(own.begin == at && own.end >= own.begin, "pages follow each other");
          check(own.begin % page == 0 && (own.end % page == 0 || own.end == bytes), "pages are whole");
          // Less than a page at its end is another's.
          check(own.begin <= share.begin * panel_bytes && own.end + page > share.end * panel_bytes, "a member has its share");
          at = own.end;
        }
        check(at == bytes, "every page is somebody's");
      }
    }
  }
}

TEST("numa: a team is on several nodes when its members are") {
  check(!several_nodes({}) && !several_nodes({0}) && !several_nodes({1, 1, 1}), "one node");
  check(several_nodes({0, 0, 1}), "two nodes");
}

TEST("numa: a weight packed or copied by node is the same weight") {
  Random random(3);
  const int64_t n = 200, k = 77;
  const std::vector<float> data = random.floats(n * k);
  const std::vector<WeightPart> parts = {{"w", reinterpret_cast<const uint8_t*>(data.data()), WeightType::f32, n}};
  for (const int members : {1, 2, 3}) {
    ThreadTeam team(members);
    for (const WeightType type : {WeightType::f32, WeightType::bf16, WeightType::i8, WeightType::i4_g32}) {
      const LinearWeight plain = pack_linear(team, parts, k, type), placed = pack_linear(team, parts, k, type, {true, {}});
      const LinearWeight copy = copy_packed(team, plain);
      check(copy.bytes != plain.bytes && copy.packed.data == copy.bytes, "a copy is its own");
      check(std::memcmp(plain.bytes, placed.bytes, packed_bytes(n, k, type)) == 0, "packed by node");
      check(std::memcmp(plain.bytes, copy.bytes, packed_bytes(n, k, type)) == 0, "copied");
    }
  }
}

TEST("numa: the system interleaves pages and says where they are") {
  Region memory(1 << 20, "a test");
  const bool granted = interleave(memory.data(), memory.bytes(), {0});
  memory.data()[4096] = 1;
  const int node = node_of(memory.data() + 4096);
  if (!granted || node < 0) return static_cast<void>(std::puts("skipped: this system lets no process place its memory"));
  check(node == 0, "memory bound to node 0 is there");
  check(!interleave(memory.data(), memory.bytes(), {}), "no node is not granted");
  check(!interleave(memory.data() + 1, 4096, {0}), "half a page is not granted");
}

// On a thread that is not the main one, whose CPUs are the process's.
void check_binding() {
  const std::vector<int> before = thread_cpus();
  if (before.empty()) return static_cast<void>(std::puts("skipped: this system does not say where threads may run"));
  const int last = before.back();
  for (const bool bind_caller : {false, true}) {
    {
      ThreadTeam team(2, {{{last}, {last}}, {}, bind_caller});
      std::vector<std::vector<int>> seen(2);
      team.run([&](int member) { seen[static_cast<size_t>(member)] = thread_cpus(); });
      check(seen[1] == std::vector<int>{last}, "a member is bound");
      check(seen[0] == (bind_caller ? std::vector<int>{last} : before), "the caller is bound when it may be");
    }
    check(thread_cpus() == before, "the caller is given back");
  }
  bind_thread({last});
  unbind_thread();
  check(thread_cpus() == before, "a thread may run where the process may");
}

TEST("threads are bound to the CPUs of their place") {
  ThreadTeam(2).run([](int member) {
    if (member == 1) check_binding();
  });
}

}  // namespace
}  // namespace mill::test
