// paged_attention: softmax(scale q k^T) v through block tables.
//
// Online softmax over stripes of 64 positions that begin at multiples of 64 in the sequence, whatever the block size; a stripe
// is four tiles of 16. The stripes of a split of kSplit positions are summed by themselves, and the splits' sums are merged in
// ascending order. A score is one chain over the head dimension and a sum of values one chain over positions, so how many rows
// are computed at once changes nothing. A query row meets exactly the stripes and positions it can see: its result depends
// neither on the other rows of the item, nor on how the prompt was chunked, nor on which threads took which splits, and
// positions it cannot see are never read into it, not even times zero. Values are read in vectors of 16 dimensions: what lies
// beyond head_dim is computed and thrown away.
#pragma once
#ifdef MILL_AMX
#include "attention_tiles.h"
#else
#include "attention_rows.h"
#endif

namespace mill::MILL_ISA {

// The stripes of one split, in ascending order.
template <class Kv, class Stripes>
inline void attend_split(const AttentionArgs& args, const AttentionItem& item, const AttentionShape& shape, const AttentionScratch& s, int64_t split, Stripes& stripes, float* sums) {
  const int32_t* table = args.block_tables + item.sequence * args.max_blocks_per_seq;
  const int64_t first = first_visible(args, args.positions[item.token_begin]), end = args.positions[item.token_end - 1] + 1;
  const int64_t begin = max_i64(first / kStripe * kStripe, split * kSplit), stop = min_i64(end, (split + 1) * kSplit);
  if (begin >= stop) return;
  const bool in_place = args.kv.unit == kTile;
  Stripe<Kv> here = find_stripe<Kv>(args.kv, table, item.kv_head, begin, first, end, s.tiles);
  for (int64_t at = begin; at < stop; at += kStripe) {
    Stripe<Kv> next = here;
    if (in_place && at + kStripe < end) next = find_stripe<Kv>(args.kv, table, item.kv_head, at + kStripe, first, end, s.tiles);
    stripes.stripe(args, shape, s, sums, here, next);
    if (!in_place && at + kStripe < stop) next = find_stripe<Kv>(args.kv, table, item.kv_head, at + kStripe, first, end, s.tiles);
    here = next;
  }
}

#ifndef MILL_AMX
template <class Kv>
using StripesOf = VectorStripes<Kv>;
#endif

template <class Kv>
inline void attend(const AttentionArgs& args, const AttentionItem& item, void* scratch) {
  const AttentionShape shape = attention_shape(args, item);
  const AttentionScratch s = attention_scratch(scratch, shape);
  StripesOf<Kv> stripes;
  stripes.begin(args, item, shape, s, scratch);
  if (!item.partials) clear_sums(shape, s.total);
  // Splits before a window are empty.
  const int64_t begin = item.partials ? item.split_begin : max_i64(item.split_begin, first_visible(args, args.positions[item.token_begin]) / kSplit);
  for (int64_t split = begin; split < item.split_end; split++) {
    float* sums = item.partials ? item.partials + (split - item.split_begin) * shape.rows * shape.stride : s.split;
    clear_sums(shape, sums);
    attend_split<Kv>(args, item, shape, s, split, stripes, sums);
    if (!item.partials) merge_sums(shape, sums, s.total);
  }
  stripes.end();
  if (!item.partials) attention_end<Kv>(args, item, shape, s.total);
}

inline void paged_attention(const AttentionArgs& args, const AttentionItem& item, void* scratch) {
  with_kv_type(args.kv.type, [&](auto type) { attend<decltype(type)>(args, item, scratch); });
}

inline void attention_merge(const AttentionArgs& args, const AttentionItem& item, void* scratch) {
  const AttentionShape shape = attention_shape(args, item);
  const AttentionScratch s = attention_scratch(scratch, shape);
  clear_sums(shape, s.total);
  for (int64_t split = item.split_begin; split < item.split_end; split++) {
    merge_sums(shape, item.partials + (split - item.split_begin) * shape.rows * shape.stride, s.total);
  }
  with_kv_type(args.kv.type, [&](auto type) { attention_end<decltype(type)>(args, item, shape, s.total); });
}

}  // namespace mill::MILL_ISA
