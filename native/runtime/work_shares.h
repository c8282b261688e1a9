// Work cut into pieces that members take as they get to it: each first from its own share, whose memory lies near it, then
// from the shares of those that are behind, as when another program holds up a core. Pieces shrink towards a share's end.
#pragma once
#include <algorithm>
#include <atomic>
#include <vector>

#include "share.h"

namespace mill {

class WorkShares {
 public:
  explicit WorkShares(int members) : members_(members), cursors_(static_cast<size_t>(2 * members)) {}

  // Before the first use in a run, while no member works.
  void reset() {
    for (Cursor& cursor : cursors_) cursor.taken.store(0, std::memory_order_relaxed);
  }

  // Visits pieces of [0, count) until all are taken, in multiples of `least` but for a share's last. Called by every member
  // once for use 0, 1, ... of a run, with a barrier after each.
  template <class Visit>
  void take(int64_t use, int member, int64_t count, int64_t least, const Visit& visit) {
    if (members_ == 1) {
      if (count > 0) visit(Range{0, count});
      return;
    }
    // The other half served the use before, which has ended.
    half(use + 1)[member].taken.store(0, std::memory_order_relaxed);
    for (int ahead = 0; ahead < members_; ahead++) {
      const int owner = (member + ahead) % members_;
      const Range share = share_of(count, owner, members_);
      for (Range piece = next(half(use)[owner], share, least); piece.begin < piece.end; piece = next(half(use)[owner], share, least)) visit(piece);
    }
  }

 private:
  struct alignas(64) Cursor {
    std::atomic<int64_t> taken{0};
  };

  Cursor* half(int64_t use) { return cursors_.data() + use % 2 * members_; }

  // Empty at the end of the share.
  static Range next(Cursor& cursor, const Range& share, int64_t least) {
    int64_t taken = cursor.taken.load(std::memory_order_relaxed), size = 0;
    do {
      const int64_t left = share.end - share.begin - taken;
      if (left <= 0) return {share.end, share.end};
      size = std::min(left, std::max<int64_t>(1, left / (4 * least)) * least);
    } while (!cursor.taken.compare_exchange_weak(taken, taken + size, std::memory_order_relaxed));
    return {share.begin + taken, share.begin + taken + size};
  }

  const int members_;
  std::vector<Cursor> cursors_;
};

}  // namespace mill
