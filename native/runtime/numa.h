// Memory of machines with several NUMA nodes. A page lies on the node of the thread that touches it first, so members that
// are bound to their nodes touch what they will read; nothing here is needed, or done, on a machine with one node.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "share.h"
#include "thread_team.h"

namespace mill {

// Bytes of a weight that `member` touches first: whole pages of its share of `panels` panels of `panel_bytes` bytes. A page
// of two members is the later one's, what follows the panels the last one's.
Range pages_of_share(int64_t panels, int64_t panel_bytes, int64_t bytes, int member, int members);

// Fresh memory for a weight: every member writes to its pages once.
void touch_shares(ThreadTeam& team, uint8_t* data, int64_t panels, int64_t panel_bytes, int64_t bytes);

// Whether the members are on more than one node.
bool several_nodes(const std::vector<int>& nodes);

// Spreads untouched pages over the nodes, in turns; false when the system refuses, as it may in a container.
bool interleave(void* data, size_t bytes, const std::vector<int>& nodes);

// The node of the page at `data`, which must have been touched; -1 when the system does not say.
int node_of(const void* data);

}  // namespace mill
