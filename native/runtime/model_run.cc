// One step: every member runs the same list of calls on its share of each, and meets the others at a barrier between them.
#include <algorithm>
#include <chrono>
#include <utility>

#include "failure.h"
#include "model.h"
#include "share.h"

namespace mill {
namespace {

// Elements in whole cache lines, so that no two members write to one.
Range share_of_elements(int64_t count, int member, int members) {
  constexpr int64_t kLine = 16;
  const Range lines = share_of((count + kLine - 1) / kLine, member, members);
  return {std::min(count, lines.begin * kLine), std::min(count, lines.end * kLine)};
}

}  // namespace

void Model::run_calls(const Step& step, size_t begin, size_t end) {
  plan_attention(step);
  next_work_[0] = next_work_[1] = 0;
  panel_shares_.reset();
  const auto start = std::chrono::steady_clock::now();
  const auto mark = [&](int member, size_t call) {
    if (marks_ && member == 0) marks_[call + 1] = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  };
  team_.run([&](int member) {
    Share share{member, 0, 0, false, nullptr};
    for (size_t i = begin; i < end; i++) {
      const OpCall& call = program_.calls[i];
      share.next = i + 1 < end ? &program_.calls[i + 1] : nullptr;
      execute(step, call, share);
      if (!share.next) break;
      team_.barrier();
      mark(member, i);
    }
  });
  if (end > begin) mark(0, end - 1);
}

void Model::run_and_draw(const Step& step, const LogitDraw* draws, int64_t count, int32_t* ids) {
  run_calls(step, 0, program_.calls.size());
  std::atomic<int64_t> next{0};
  const auto work = [&](int member) {
    for (int64_t i = next++; i < count; i = next++) ids[i] = draw(draws[i], member);
  };
  const int64_t sampled = std::count_if(draws, draws + count, [](const LogitDraw& draw) { return draw.params.temperature > 0; });
  // The largest of a row are known; for so little the others need not be waited for.
  if (sampled < 2) work(0);
  else team_.run(work);
}

int32_t Model::draw(const LogitDraw& draw, int member) {
  const int64_t n = program_.vocab, blocks = (n + kMaximaBlock - 1) / kMaximaBlock;
  const float* maxima = maxima_.data() ? maxima_.as<float>() + draw.row * blocks : nullptr;
  return draw_row(kernels_, {temporary(program_.logits) + draw.row * n, draw.params, draw.u, maxima}, n, row_scratch_[static_cast<size_t>(member)]);
}

void Model::execute(const Step& step, const OpCall& call, Share& share) {
  switch (call.op) {
    case Op::embedding: return run_embedding(step, call, share);
    case Op::rms_norm: return run_rms_norm(step, call, share);
    case Op::linear: return run_linear(step, call, share);
    case Op::rope: return run_rope(step, call, share);
    case Op::kv_write: return run_kv_write(step, call, share);
    case Op::paged_attention: return run_paged_attention(step, call, share);
    case Op::add: return run_add(step, call, share);
    case Op::silu_mul: return run_silu_mul(step, call, share);
    case Op::gather_rows: return run_gather_rows(step, call, share);
    case Op::add_rms_norm: return run_add_rms_norm(step, call, share);
    case Op::linear_silu_mul: return run_linear_silu_mul(step, call, share);
    case Op::rope_kv_write: return run_rope_kv_write(step, call, share);
  }
}

const int32_t* Model::step_input(const Step& step, int32_t value) const {
  switch (program_.values[static_cast<size_t>(value)].input) {
    case StepInput::token_ids: return step.token_ids;
    case StepInput::positions: return step.positions;
    case StepInput::slot_mapping: return step.slot_mapping;
    case StepInput::logit_rows: return step.logit_row_ids;
  }
  return nullptr;
}

void Model::run_embedding(const Step& step, const OpCall& call, const Share& share) {
  const Weight& table = weight(call.inputs[op_embedding::in_weight]);
  const Range rows = share_of(step.tokens, share.member, threads());
  const int32_t* ids = step_input(step, call.inputs[op_embedding::in_token_ids]);
  kernels_.embedding({ids, table.table, table.table_type, table.width, temporary(call.outputs[op_embedding::out_y])}, rows.begin, rows.end);
}

// The linear that reads y next, when it wants its input prepared.
std::optional<LinearArgs> Model::next_linear(const Step& step, const OpCall* next, int32_t y, int member) const {
  if (!next || !kOps[static_cast<int>(next->op)].packed || next->inputs[0] != y) return std::nullopt;
  const LinearArgs args = next->op == Op::linear ? linear_args(step, *next, member) : gate_args(step, *next, member);
  return args.m > 0 && kernels_.linear_needs_prepare(args) ? std::optional(args) : std::nullopt;
}

// Has `write` fill the member's rows of y. A linear that comes next has its input prepared some rows at a time, while they
// are in the nearest caches.
template <class Write>
void Model::write_rows(const Step& step, int32_t y, Share& share, const Write& write) {
  const std::optional<LinearArgs> linear = next_linear(step, share.next, y, share.member);
  if (!linear) return write(share_of(step.of(rows(y)), share.member, threads()));
  constexpr int64_t kRowsAtOnce = 12;
  const int64_t pieces = 1 + linear->m / (kRowsAtOnce * threads()), all = pieces * threads();
  for (int64_t piece = share.member * pieces; piece < (share.member + 1) * pieces; piece++) {
    write(Range{kernels_.linear_prepare_begin(*linear, piece, all), kernels_.linear_prepare_begin(*linear, piece + 1, all)});
    kernels_.linear_prepare(*linear, piece, all);
  }
  share.prepared = true;
}

void Model::run_rms_norm(const Step& step, const OpCall& call, Share& share) {
  const int32_t x = call.inputs[op_rms_norm::in_x], y = call.outputs[op_rms_norm::out_y];
  const Weight& scale = weight(call.inputs[op_rms_norm::in_weight]);
  const RmsNormArgs args{temporary(x), static_cast<const float*>(scale.table), temporary(y), scale.rows, static_cast<float>(call.attrs[op_rms_norm::attr_eps])};
  const int64_t groups = width(x) / scale.rows;
  write_rows(step, y, share, [&](Range rows) { kernels_.rms_norm(args, rows.begin * groups, rows.end * groups); });
}

void Model::run_add_rms_norm(const Step& step, const OpCall& call, Share& share) {
  namespace op = op_add_rms_norm;
  const int32_t a = call.inputs[op::in_a], y = call.outputs[op::out_y];
  const int64_t d = width(a);
  float* sum = temporary(call.outputs[op::out_sum]);
  const AddArgs add{temporary(a), temporary(call.inputs[op::in_b]), sum};
  const RmsNormArgs norm{sum, optional_vector(call.inputs[op::in_weight]), temporary(y), d, static_cast<float>(call.attrs[op::attr_eps])};
  write_rows(step, y, share, [&](Range rows) {
    for (int64_t row = rows.begin; row < rows.end; row++) {
      kernels_.add(add, row * d, (row + 1) * d);
      kernels_.rms_norm(norm, row, row + 1);
    }
  });
}

LinearArgs Model::linear_args(const Step& step, int32_t x, int32_t matrix, int32_t bias, int32_t y, int member) const {
  return {temporary(x), step.of(rows(x)), weight(matrix).linear.packed, optional_vector(bias), temporary(y), prepared_.data(), thread_scratch(member)};
}

LinearArgs Model::linear_args(const Step& step, const OpCall& call, int member) const {
  namespace op = op_linear;
  return linear_args(step, call.inputs[op::in_x], call.inputs[op::in_weight], call.inputs[op::in_bias], call.outputs[op::out_y], member);
}

LinearArgs Model::gate_args(const Step& step, const OpCall& call, int member) const {
  namespace op = op_linear_silu_mul;
  return linear_args(step, call.inputs[op::in_x], call.inputs[op::in_gate_weight], call.inputs[op::in_gate_bias], call.outputs[op::out_y], member);
}

void Model::prepare_linear(const LinearArgs& args, Share& share) {
  if (std::exchange(share.prepared, false) || !kernels_.linear_needs_prepare(args)) return;
  kernels_.linear_prepare(args, share.member, threads());
  team_.barrier();
}

// Panels that are worth taking by themselves: some 60 us of work. Small ops keep to the shares, whose weights may still
// be in the member's caches.
int64_t Model::least_panels(const LinearArgs& args) const {
  constexpr int64_t kPieceBytes = 1 << 20, kOperationsPerByte = 6;
  const int64_t k = args.weight.k_padded, cost = panel_bytes(args.weight.type, k) + 2 * args.m * k * kPanel / kOperationsPerByte;
  const int64_t together = args.m == 1 ? kernels_.panels_one_row : kernels_.panels_many_rows;
  return (kPieceBytes / cost / together + 1) * together;
}

template <class Visit>
void Model::take_panels(const LinearArgs& args, Share& share, const Visit& visit) {
  panel_shares_.take(share.linear_calls++, share.member, args.weight.panels(), least_panels(args), visit);
}

void Model::run_linear(const Step& step, const OpCall& call, Share& share) {
  const LinearArgs args = linear_args(step, call, share.member);
  if (args.m == 0) return;
  prepare_linear(args, share);
  if (call.outputs[op_linear::out_y] == program_.logits && maxima_.data()) return run_logits(args, share);
  take_panels(args, share, [&](Range panels) { kernels_.linear(args, panels.begin, panels.end); });
}

// Some columns at a time, so that they are still near when the largest of their blocks are found. A token is drawn without
// another look at all logits, which the weights have driven out of the caches by then.
void Model::run_logits(const LinearArgs& args, Share& share) {
  constexpr int64_t kNearBytes = 128 << 10, kBlockPanels = kMaximaBlock / kPanel;
  const int64_t n = args.weight.n, blocks = (n + kMaximaBlock - 1) / kMaximaBlock;
  const int64_t at_once = std::max<int64_t>(1, kNearBytes / (args.m * kMaximaBlock * 4)), least = (least_panels(args) + kBlockPanels - 1) / kBlockPanels;
  panel_shares_.take(share.linear_calls++, share.member, blocks, least, [&](Range piece) {
    for (int64_t begin = piece.begin; begin < piece.end; begin += at_once) {
      const int64_t end = std::min(piece.end, begin + at_once), column = begin * kMaximaBlock;
      kernels_.linear(args, begin * kBlockPanels, std::min(end * kBlockPanels, args.weight.panels()));
      for (int64_t row = 0; row < args.m; row++) {
        kernels_.block_maxima(args.y + row * n + column, std::min(n, end * kMaximaBlock) - column, maxima_.as<float>() + row * blocks + begin);
      }
    }
  });
}

// A member has the same columns of both, so that it need not wait for the others before the product.
void Model::run_linear_silu_mul(const Step& step, const OpCall& call, Share& share) {
  namespace op = op_linear_silu_mul;
  const LinearArgs gate = gate_args(step, call, share.member);
  if (gate.m == 0) return;
  prepare_linear(gate, share);
  const LinearArgs up = linear_args(step, call.inputs[op::in_x], call.inputs[op::in_up_weight], call.inputs[op::in_up_bias], call.outputs[op::out_up], share.member);
  const SiluMulArgs product{gate.y, up.y, gate.y};
  const int64_t n = gate.weight.n;
  take_panels(gate, share, [&](Range panels) {
    kernels_.linear(gate, panels.begin, panels.end);
    kernels_.linear(up, panels.begin, panels.end);
    const int64_t begin = panels.begin * kPanel, end = std::min(panels.end * kPanel, n);
    for (int64_t row = 0; row < gate.m; row++) kernels_.silu_mul(product, row * n + begin, row * n + end);
  });
}

void Model::run_rope(const Step& step, const OpCall& call, const Share& share) {
  const int32_t x = call.inputs[op_rope::in_x];
  const Weight& table = weight(call.inputs[op_rope::in_table]);
  const int64_t head_dim = static_cast<int64_t>(call.attrs[op_rope::attr_head_dim]);
  const RopeArgs args{temporary(x),
                      step_input(step, call.inputs[op_rope::in_positions]),
                      static_cast<const float*>(table.table),
                      temporary(call.outputs[op_rope::out_y]),
                      width(x),
                      head_dim,
                      static_cast<int64_t>(call.attrs[op_rope::attr_rotary_dim]),
                      call.attrs[op_rope::attr_interleaved] != 0};
  const Range rows = share_of(step.tokens, share.member, threads());
  kernels_.rope(args, rows.begin, rows.end);
}

void Model::run_kv_write(const Step& step, const OpCall& call, const Share& share) {
  const KvWriteArgs args{temporary(call.inputs[op_kv_write::in_k]), temporary(call.inputs[op_kv_write::in_v]),
                         step_input(step, call.inputs[op_kv_write::in_slot_mapping]), layer(static_cast<int64_t>(call.attrs[op_kv_write::attr_layer]))};
  const Range rows = share_of(step.tokens, share.member, threads());
  kernels_.kv_write(args, rows.begin, rows.end);
}

// Row by row: a row's heads are near from the norm to the cache.
void Model::run_rope_kv_write(const Step& step, const OpCall& call, const Share& share) {
  namespace op = op_rope_kv_write;
  const auto attr = [&](int index) { return call.attrs[static_cast<size_t>(index)]; };
  const int32_t qkv = call.inputs[op::in_qkv], q = call.outputs[op::out_q];
  const int64_t queries = width(q), keys = kv_.kv_heads * kv_.head_dim;
  const int32_t* positions = step_input(step, call.inputs[op::in_positions]);
  const int32_t* slots = step_input(step, call.inputs[op::in_slot_mapping]);
  const KvLayer cache = layer(static_cast<int64_t>(attr(op::attr_layer)));
  float* rotated = static_cast<float*>(thread_scratch(share.member));
  const auto rotate = [&](const float* x, int64_t columns, int32_t norm, const int32_t* position, float* y) {
    if (norm >= 0) kernels_.rms_norm({x, optional_vector(norm), y, kv_.head_dim, static_cast<float>(attr(op::attr_eps))}, 0, columns / kv_.head_dim);
    kernels_.rope({norm >= 0 ? y : x, position, optional_vector(call.inputs[op::in_table]), y, columns, kv_.head_dim, static_cast<int64_t>(attr(op::attr_rotary_dim)), attr(op::attr_interleaved) != 0}, 0, 1);
  };
  const Range rows = share_of(step.tokens, share.member, threads());
  for (int64_t t = rows.begin; t < rows.end; t++) {
    const float* row = temporary(qkv) + t * width(qkv);
    rotate(row, queries, call.inputs[op::in_q_norm], positions + t, temporary(q) + t * queries);
    rotate(row + queries, keys, call.inputs[op::in_k_norm], positions + t, rotated);
    kernels_.kv_write({rotated, row + queries + keys, slots + t, cache}, 0, 1);
  }
}

// Enough pieces of work for all members to end together.
constexpr int64_t kPiecesPerMember = 4;
constexpr int64_t kPartialBytesPerMember = int64_t{1} << 19;

void Model::size_partials() {
  if (threads() == 1 || kv_.layers == 0) return;
  partials_ = Region(static_cast<size_t>(kPartialBytesPerMember * threads()), "thread scratch");
  pieces_left_ = std::make_unique<std::atomic<int32_t>[]>(static_cast<size_t>(kPiecesPerMember * threads()));
}

// Items large enough to share the loads of a tile between queries, yet enough of them for all members; the heaviest first.
void Model::plan_attention(const Step& step) {
  if (heads_ == 0) return;
  const int64_t group = heads_ / kv_.kv_heads;
  int64_t tokens = std::max<int64_t>(1, kAttentionRows / group);
  const int64_t wanted = kPiecesPerMember * threads();
  while (tokens * group > 16 && tokens > 1 && (step.tokens + tokens - 1) / tokens * kv_.kv_heads < wanted) tokens /= 2;
  work_.clear();
  for (int64_t s = 0; s < step.sequences; s++) {
    for (int64_t t = step.query_starts[s]; t < step.query_starts[s + 1]; t += tokens) {
      const int64_t end = std::min<int64_t>(t + tokens, step.query_starts[s + 1]);
      const int32_t splits = static_cast<int32_t>(step.positions[end - 1] / kSplit + 1);
      for (int64_t head = 0; head < kv_.kv_heads; head++) {
        work_.push_back({{static_cast<int32_t>(s), static_cast<int32_t>(t), static_cast<int32_t>(end), static_cast<int32_t>(head), 0, splits, nullptr}, -1, 0});
        work_.back().cost = attention_cost(step, work_.back().item);
      }
    }
  }
  cut_long_items(step);
  // Not std::stable_sort, which allocates. Those of a sequence stay together.
  std::sort(work_.begin(), work_.end(), [](const AttentionWork& a, const AttentionWork& b) { return a.cost != b.cost ? a.cost > b.cost : a.item.sequence < b.item.sequence; });
}

int64_t Model::attention_cost(const Step& step, const AttentionItem& item) const {
  const int64_t positions = std::min<int64_t>(step.positions[item.token_end - 1] + 1, item.split_end * kSplit) - item.split_begin * kSplit;
  return (item.token_end - item.token_begin) * positions;
}

// An item that would keep one member busy while others wait is cut by splits, as far as there is room for their sums.
void Model::cut_long_items(const Step& step) {
  cuts_.clear();
  if (threads() == 1) return;
  int64_t total = 0;
  for (const AttentionWork& work : work_) total += work.cost;
  const int64_t share = total / (kPiecesPerMember * threads()) + 1;
  float* room = partials_.as<float>();
  int64_t left = static_cast<int64_t>(partials_.bytes()) / 4;
  const size_t count = work_.size();
  for (size_t i = 0; i < count; i++) {
    AttentionItem whole = work_[i].item;
    const int64_t splits = whole.split_end, pieces = std::min(splits, (work_[i].cost + share - 1) / share);
    const int64_t split_floats = (whole.token_end - whole.token_begin) * (heads_ / kv_.kv_heads) * attention_row_floats(kv_.head_dim);
    if (pieces < 2 || splits * split_floats > left) continue;
    whole.partials = room;
    room += splits * split_floats;
    left -= splits * split_floats;
    const int32_t cut = static_cast<int32_t>(cuts_.size());
    for (int64_t piece = 0; piece < pieces; piece++) {
      AttentionItem item = whole;
      item.split_begin = static_cast<int32_t>(splits * piece / pieces);
      item.split_end = static_cast<int32_t>(splits * (piece + 1) / pieces);
      item.partials += item.split_begin * split_floats;
      const AttentionWork work{item, cut, attention_cost(step, item)};
      if (piece == 0) work_[i] = work;
      else work_.push_back(work);
    }
    cuts_.push_back({whole, static_cast<int32_t>(pieces)});
    pieces_left_[static_cast<size_t>(cut)] = static_cast<int32_t>(pieces);
  }
}

const float* Model::optional_vector(int32_t value) const { return value < 0 ? nullptr : static_cast<const float*>(weight(value).table); }

void Model::run_paged_attention(const Step& step, const OpCall& call, Share& share) {
  const auto attr = [&](int index) { return call.attrs[static_cast<size_t>(index)]; };
  const AttentionArgs args{temporary(call.inputs[op_paged_attention::in_q]),
                           temporary(call.outputs[op_paged_attention::out_y]),
                           layer(static_cast<int64_t>(attr(op_paged_attention::attr_layer))),
                           static_cast<int64_t>(attr(op_paged_attention::attr_heads)),
                           static_cast<float>(attr(op_paged_attention::attr_scale)),
                           static_cast<float>(attr(op_paged_attention::attr_softcap)),
                           static_cast<int64_t>(attr(op_paged_attention::attr_window)),
                           optional_vector(call.inputs[op_paged_attention::in_sinks]),
                           optional_vector(call.inputs[op_paged_attention::in_slopes]),
                           step.positions,
                           step.block_tables,
                           step.max_blocks_per_seq};
  const size_t turn = static_cast<size_t>(share.attention_calls++ % 2);
  if (share.member == 0) next_work_[1 - turn] = 0;
  void* scratch = thread_scratch(share.member);
  for (size_t i = next_work_[turn]++; i < work_.size(); i = next_work_[turn]++) run_attention_work(args, work_[i], scratch);
}

void Model::run_attention_work(const AttentionArgs& args, const AttentionWork& work, void* scratch) {
  kernels_.paged_attention(args, work.item, scratch);
  if (work.cut < 0) return;
  const CutItem& cut = cuts_[static_cast<size_t>(work.cut)];
  std::atomic<int32_t>& left = pieces_left_[static_cast<size_t>(work.cut)];
  if (left.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  // For the next layer, which begins after a barrier.
  left.store(cut.pieces, std::memory_order_relaxed);
  kernels_.attention_merge(args, cut.whole, scratch);
}

void Model::run_add(const Step& step, const OpCall& call, const Share& share) {
  const int32_t a = call.inputs[op_add::in_a];
  const Range range = share_of_elements(step.of(rows(a)) * width(a), share.member, threads());
  kernels_.add({temporary(a), temporary(call.inputs[op_add::in_b]), temporary(call.outputs[op_add::out_y])}, range.begin, range.end);
}

void Model::run_silu_mul(const Step& step, const OpCall& call, const Share& share) {
  const int32_t gate = call.inputs[op_silu_mul::in_gate];
  const Range range = share_of_elements(step.of(rows(gate)) * width(gate), share.member, threads());
  kernels_.silu_mul({temporary(gate), temporary(call.inputs[op_silu_mul::in_up]), temporary(call.outputs[op_silu_mul::out_y])}, range.begin, range.end);
}

void Model::run_gather_rows(const Step& step, const OpCall& call, const Share& share) {
  const int32_t x = call.inputs[op_gather_rows::in_x];
  const int32_t* ids = step_input(step, call.inputs[op_gather_rows::in_logit_rows]);
  const Range range = share_of(step.logit_rows, share.member, threads());
  kernels_.gather_rows({temporary(x), ids, width(x), temporary(call.outputs[op_gather_rows::out_y])}, range.begin, range.end);
}

}  // namespace mill
