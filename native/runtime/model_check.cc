// Everything that comes from JavaScript is checked here: programs once at load, steps before they touch memory.
#include <algorithm>
#include <cmath>

#include "failure.h"
#include "model.h"

namespace mill {
namespace {

constexpr int64_t kMostElements = int64_t{1} << 40;
constexpr int64_t kMostHeadDim = 1024;

bool whole(double x, double least, double most) { return x >= least && x <= most && x == std::floor(x); }

}  // namespace

void Model::check_program() const {
  require(limits_.tokens > 0 && limits_.tokens <= (1 << 24), "maxNumBatchedTokens is between 1 and 2^24");
  require(limits_.sequences > 0 && limits_.sequences <= (1 << 24), "maxNumSeqs is between 1 and 2^24");
  require(limits_.logit_rows > 0 && limits_.logit_rows <= (1 << 24), "maxLogitRows is between 1 and 2^24");
  require(kv_.layers >= 0 && kv_.layers <= 65536 && kv_.kv_heads > 0 && kv_.kv_heads <= 65536, "the KV shape is sensible");
  require(kv_.head_dim > 0 && kv_.head_dim <= kMostHeadDim, "headDim is between 1 and 1024");
  require(kv_.block_size > 0 && kv_.block_size <= 65536, "blockSize is between 1 and 65536");
  // Slots are int32.
  require(kv_.num_blocks > 0 && kv_.num_blocks * kv_.block_size < (int64_t{1} << 31), "numBlocks * blockSize is below 2^31");
  require(kv_.layers * kv_.num_blocks * kv_.block_size <= kMostElements / (kv_.kv_heads * kv_.head_dim), "the KV cache is below 2^40 elements");
  require(program_.arena_bytes >= 0, "the arena has a size");
  for (const Value& value : program_.values) {
    if (value.kind != ValueKind::temporary) continue;
    require(value.width > 0 && value.width <= (1 << 28), "a value's width is between 1 and 2^28");
    require(value.offset >= 0 && value.offset % 64 == 0, "a value's offset is a multiple of 64");
    require(value.offset + limits_.of(value.rows) * value.width * 4 <= program_.arena_bytes, "a value lies within the arena");
  }
  for (const OpCall& call : program_.calls) check_call(call);
  const bool known = program_.logits >= 0 && static_cast<size_t>(program_.logits) < program_.values.size();
  require(known, "the logits are a value");
  const Value& logits = program_.values[static_cast<size_t>(program_.logits)];
  require(logits.kind == ValueKind::temporary && logits.width == program_.vocab, "the logits are a temporary as wide as the vocabulary");
}

void Model::check_call(const OpCall& call) const {
  const int id = static_cast<int>(call.op);
  require(id >= 0 && id < kOpCount, "an op is in the table");
  const OpInfo& info = kOps[id];
  require(static_cast<int>(call.inputs.size()) == info.inputs && static_cast<int>(call.outputs.size()) == info.outputs &&
              static_cast<int>(call.attrs.size()) == info.attrs,
          "a call has the operands and attributes of its op");
  const int32_t count = static_cast<int32_t>(program_.values.size());
  for (int i = 0; i < info.inputs; i++) {
    const int32_t value = call.inputs[static_cast<size_t>(i)];
    if (value == -1 && (info.optional >> i & 1u)) continue;
    require(value >= 0 && value < count, "an operand is a value");
    const ValueKind kind = program_.values[static_cast<size_t>(value)].kind;
    const ValueKind wanted = info.weights >> i & 1u ? ValueKind::weight : info.step_inputs >> i & 1u ? ValueKind::step_input : ValueKind::temporary;
    require(kind == wanted, "an operand is of its kind");
  }
  for (const int32_t value : call.outputs) {
    require(value >= 0 && value < count && program_.values[static_cast<size_t>(value)].kind == ValueKind::temporary, "an output is a temporary");
  }
  check_shapes(call);
}

void Model::check_shapes(const OpCall& call) const {
  const auto same = [&](int32_t a, int32_t b) { return rows(a) == rows(b) && width(a) == width(b); };
  const auto attr = [&](int index) { return call.attrs[static_cast<size_t>(index)]; };
  switch (call.op) {
    case Op::embedding: return require(rows(call.outputs[0]) == Rows::T, "embedding writes T rows");
    case Op::rms_norm: return require(same(call.inputs[0], call.outputs[0]), "rms_norm keeps its shape");
    case Op::linear: return require(rows(call.inputs[0]) == rows(call.outputs[0]), "linear keeps its rows");
    case Op::linear_silu_mul: {
      const bool fits = rows(call.inputs[0]) == rows(call.outputs[0]) && same(call.outputs[0], call.outputs[1]);
      return require(fits, "linear_silu_mul keeps its rows");
    }
    case Op::add_rms_norm: {
      const bool fits = same(call.inputs[0], call.inputs[1]) && same(call.inputs[0], call.outputs[0]) && same(call.inputs[0], call.outputs[1]);
      return require(fits, "add_rms_norm keeps its shape");
    }
    case Op::add:
    case Op::silu_mul: return require(same(call.inputs[0], call.outputs[0]) && same(call.inputs[1], call.outputs[0]), "an elementwise op keeps its shape");
    case Op::gather_rows: {
      const bool fits = rows(call.inputs[0]) == Rows::T && rows(call.outputs[0]) == Rows::R && width(call.inputs[0]) == width(call.outputs[0]);
      return require(fits, "gather_rows goes from T to R rows");
    }
    case Op::rope: {
      const double head_dim = attr(op_rope::attr_head_dim), rotary_dim = attr(op_rope::attr_rotary_dim);
      require(same(call.inputs[0], call.outputs[0]) && rows(call.inputs[0]) == Rows::T, "rope keeps its shape");
      require(whole(head_dim, 1, 65536) && width(call.inputs[0]) % static_cast<int64_t>(head_dim) == 0, "rope's width is a multiple of headDim");
      return require(whole(rotary_dim / 2, 1, head_dim / 2), "rotaryDim is even and at most headDim");
    }
    case Op::rope_kv_write: return check_rope_kv_write(call);
    case Op::kv_write: {
      const int64_t kv_width = kv_.kv_heads * kv_.head_dim;
      require(whole(attr(op_kv_write::attr_layer), 0, static_cast<double>(kv_.layers) - 1), "kv_write's layer exists");
      const bool fits = rows(call.inputs[0]) == Rows::T && same(call.inputs[0], call.inputs[1]) && width(call.inputs[0]) == kv_width;
      return require(fits, "keys and values are kvHeads * headDim wide");
    }
    case Op::paged_attention: {
      require(whole(attr(op_paged_attention::attr_layer), 0, static_cast<double>(kv_.layers) - 1), "paged_attention's layer exists");
      const double heads = attr(op_paged_attention::attr_heads);
      require(attr(op_paged_attention::attr_kv_heads) == static_cast<double>(kv_.kv_heads) && attr(op_paged_attention::attr_head_dim) == static_cast<double>(kv_.head_dim),
              "paged_attention has the KV cache's shape");
      const bool divides = whole(heads / static_cast<double>(kv_.kv_heads), 1, kAttentionRows);
      require(divides, "heads are a multiple of kvHeads, at most 64 times");
      const bool fits = rows(call.inputs[0]) == Rows::T && same(call.inputs[0], call.outputs[0]) && width(call.inputs[0]) == static_cast<int64_t>(heads) * kv_.head_dim;
      require(fits, "queries are heads * headDim wide");
      require(whole(attr(op_paged_attention::attr_window), 0, 2147483647), "the window is a whole number");
      return require(std::isfinite(attr(op_paged_attention::attr_scale)) && attr(op_paged_attention::attr_softcap) >= 0, "scale and softcap are numbers");
    }
  }
}

void Model::check_rope_kv_write(const OpCall& call) const {
  const auto attr = [&](int index) { return call.attrs[static_cast<size_t>(index)]; };
  const int32_t qkv = call.inputs[op_rope_kv_write::in_qkv], q = call.outputs[op_rope_kv_write::out_q];
  const double head_dim = attr(op_rope_kv_write::attr_head_dim), rotary_dim = attr(op_rope_kv_write::attr_rotary_dim);
  require(head_dim == static_cast<double>(kv_.head_dim) && whole(rotary_dim / 2, 1, head_dim / 2), "rope_kv_write has the KV cache's heads, and rotaryDim is even and at most headDim");
  require(whole(attr(op_rope_kv_write::attr_layer), 0, static_cast<double>(kv_.layers) - 1), "rope_kv_write's layer exists");
  require(rows(qkv) == Rows::T && rows(q) == Rows::T && attr(op_rope_kv_write::attr_queries) == static_cast<double>(width(q)), "rope_kv_write hands out the queries");
  require(width(q) % kv_.head_dim == 0 && width(qkv) - width(q) == 2 * kv_.kv_heads * kv_.head_dim, "rope_kv_write's input is queries, keys and values");
}

bool Model::is_vector(int32_t value, int64_t elements) const { return weight(value).table && weight(value).rows * weight(value).width == elements; }

void Model::check_linear(int32_t x, int32_t matrix, int32_t bias, int32_t y) const {
  const Weight& slot = weight(matrix);
  require(slot.linear.packed.data && slot.rows == width(y) && slot.width == width(x), "a linear's weight fits its input and output");
  require(bias < 0 || is_vector(bias, slot.rows), "the bias fits the output");
}

void Model::check_weights(const OpCall& call) const {
  const OpInfo& info = kOps[static_cast<int>(call.op)];
  for (int i = 0; i < info.inputs; i++) {
    const int32_t value = call.inputs[static_cast<size_t>(i)];
    if (value >= 0 && (info.weights >> i & 1u)) require(weight(value).loaded, "every weight is loaded");
  }
  switch (call.op) {
    case Op::embedding: {
      const Weight& table = weight(call.inputs[op_embedding::in_weight]);
      return require(table.table && table.width == width(call.outputs[0]), "the embedding is as wide as its output");
    }
    case Op::rms_norm: {
      const Weight& scale = weight(call.inputs[op_rms_norm::in_weight]);
      return require(scale.table && scale.width == 1 && width(call.inputs[0]) % scale.rows == 0, "the norm's weight divides its input");
    }
    case Op::add_rms_norm: return require(is_vector(call.inputs[op_add_rms_norm::in_weight], width(call.inputs[0])), "the norm's weight is as wide as its input");
    case Op::linear: return check_linear(call.inputs[op_linear::in_x], call.inputs[op_linear::in_weight], call.inputs[op_linear::in_bias], call.outputs[0]);
    case Op::linear_silu_mul: {
      namespace op = op_linear_silu_mul;
      check_linear(call.inputs[op::in_x], call.inputs[op::in_gate_weight], call.inputs[op::in_gate_bias], call.outputs[0]);
      check_linear(call.inputs[op::in_x], call.inputs[op::in_up_weight], call.inputs[op::in_up_bias], call.outputs[0]);
      const PackedLinear& gate = weight(call.inputs[op::in_gate_weight]).linear.packed;
      const PackedLinear& up = weight(call.inputs[op::in_up_weight]).linear.packed;
      return require(gate.type == up.type && gate.k_padded == up.k_padded, "gate and up read the same prepared input");
    }
    case Op::rope_kv_write: {
      namespace op = op_rope_kv_write;
      const Weight& table = weight(call.inputs[op::in_table]);
      require(table.table && static_cast<double>(table.width) == call.attrs[op::attr_rotary_dim], "the rope table is rotaryDim wide");
      for (const int32_t norm : {call.inputs[op::in_q_norm], call.inputs[op::in_k_norm]}) require(norm < 0 || is_vector(norm, kv_.head_dim), "a norm of heads is headDim wide");
      return;
    }
    case Op::rope: {
      const Weight& table = weight(call.inputs[op_rope::in_table]);
      return require(table.table && static_cast<double>(table.width) == call.attrs[op_rope::attr_rotary_dim], "the rope table is rotaryDim wide");
    }
    case Op::paged_attention: {
      for (const int32_t value : {call.inputs[op_paged_attention::in_sinks], call.inputs[op_paged_attention::in_slopes]}) {
        const bool fits = value < 0 || (weight(value).table && static_cast<double>(weight(value).rows * weight(value).width) == call.attrs[op_paged_attention::attr_heads]);
        require(fits, "sinks and slopes are a number a head");
      }
      return;
    }
    default: return;
  }
}

// What of a step this program reads, and how far; known once the weights are there.
void Model::find_step_bounds() {
  const auto tighten = [](int64_t& bound, int64_t other) { bound = bound == 0 ? other : std::min(bound, other); };
  for (const OpCall& call : program_.calls) {
    if (call.op == Op::embedding) tighten(bounds_.token_ids, weight(call.inputs[op_embedding::in_weight]).rows);
    if (call.op == Op::rope) tighten(bounds_.positions, weight(call.inputs[op_rope::in_table]).rows);
    if (call.op == Op::rope_kv_write) tighten(bounds_.positions, weight(call.inputs[op_rope_kv_write::in_table]).rows);
    if (call.op == Op::kv_write || call.op == Op::rope_kv_write) bounds_.slots = kv_.num_blocks * kv_.block_size;
    if (call.op == Op::gather_rows) bounds_.logit_rows = true;
    if (call.op == Op::paged_attention) heads_ = std::max(heads_, static_cast<int64_t>(call.attrs[op_paged_attention::attr_heads]));
  }
}

void Model::check_step(const Step& step) const {
  require(step.tokens > 0 && step.tokens <= limits_.tokens, "a step has between 1 and maxNumBatchedTokens tokens");
  require(step.sequences > 0 && step.sequences <= limits_.sequences, "a step has between 1 and maxNumSeqs sequences");
  require(step.logit_rows >= 0 && step.logit_rows <= limits_.logit_rows, "a step has at most maxLogitRows logit rows");
  const auto within = [](const int32_t* values, int64_t count, int64_t bound) {
    bool all = true;
    for (int64_t i = 0; i < count; i++) all &= values[i] >= 0 && values[i] < bound;
    return all;
  };
  require(bounds_.token_ids == 0 || within(step.token_ids, step.tokens, bounds_.token_ids), "a token id is in the vocabulary");
  require(bounds_.positions == 0 || within(step.positions, step.tokens, bounds_.positions), "a position is within the rope table");
  require(bounds_.slots == 0 || within(step.slot_mapping, step.tokens, bounds_.slots), "a slot is within the KV cache");
  require(!bounds_.logit_rows || within(step.logit_row_ids, step.logit_rows, step.tokens), "a logit row is one of the step's tokens");
  if (heads_ == 0) return;
  require(step.query_starts[0] == 0 && step.query_starts[step.sequences] == step.tokens, "the sequences hold all tokens");
  for (int64_t s = 0; s < step.sequences; s++) check_sequence(step, s);
}

void Model::check_sequence(const Step& step, int64_t s) const {
  const int32_t begin = step.query_starts[s], end = step.query_starts[s + 1];
  require(begin >= 0 && begin < end && end <= step.tokens, "a sequence has tokens of its own");
  for (int32_t t = begin + 1; t < end; t++) require(step.positions[t] == step.positions[t - 1] + 1, "a sequence's tokens are consecutive");
  require(step.positions[begin] >= 0, "a position is not negative");
  const int64_t length = step.seq_lens[s];
  require(length == int64_t{step.positions[end - 1]} + 1, "a sequence's length is its last position plus one");
  const int64_t blocks = (length + kv_.block_size - 1) / kv_.block_size;
  require(blocks <= step.max_blocks_per_seq, "a sequence's block table covers its length");
  const int32_t* table = step.block_tables + s * step.max_blocks_per_seq;
  for (int64_t b = 0; b < blocks; b++) require(table[b] >= 0 && table[b] < kv_.num_blocks, "a block is within the KV cache");
}

}  // namespace mill
