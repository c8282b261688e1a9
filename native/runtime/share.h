// How work is shared among the members of a team: always the same part for the same member.
#pragma once
#include <cstdint>

namespace mill {

struct Range {
  int64_t begin;
  int64_t end;
};

inline Range share_of(int64_t count, int member, int members) { return {count * member / members, count * (member + 1) / members}; }

}  // namespace mill
