// Generated from src/ops by scripts/gen_native_ops.mjs; do not edit.
#pragma once
#include <cstdint>

namespace mill {

enum class StepInput : int32_t { token_ids = 0, positions = 1, slot_mapping = 2, logit_rows = 3 };

enum class Op : int32_t { embedding = 0, rms_norm = 1, linear = 2, rope = 3, kv_write = 4, paged_attention = 5, add = 6, silu_mul = 7, gather_rows = 8, add_rms_norm = 9, linear_silu_mul = 10, rope_kv_write = 11 };

// Positions of operands and attributes in a call.
namespace op_embedding {
enum : int { in_token_ids = 0, in_weight = 1, out_y = 0 };
}
namespace op_rms_norm {
enum : int { in_x = 0, in_weight = 1, out_y = 0, attr_eps = 0 };
}
namespace op_linear {
enum : int { in_x = 0, in_weight = 1, in_bias = 2, out_y = 0 };
}
namespace op_rope {
enum : int { in_x = 0, in_positions = 1, in_table = 2, out_y = 0, attr_head_dim = 0, attr_rotary_dim = 1, attr_interleaved = 2 };
}
namespace op_kv_write {
enum : int { in_k = 0, in_v = 1, in_slot_mapping = 2, attr_layer = 0 };
}
namespace op_paged_attention {
enum : int { in_q = 0, in_sinks = 1, in_slopes = 2, out_y = 0, attr_layer = 0, attr_heads = 1, attr_kv_heads = 2, attr_head_dim = 3, attr_scale = 4, attr_window = 5, attr_softcap = 6 };
}
namespace op_add {
enum : int { in_a = 0, in_b = 1, out_y = 0 };
}
namespace op_silu_mul {
enum : int { in_gate = 0, in_up = 1, out_y = 0 };
}
namespace op_gather_rows {
enum : int { in_x = 0, in_logit_rows = 1, out_y = 0 };
}
namespace op_add_rms_norm {
enum : int { in_a = 0, in_b = 1, in_weight = 2, out_sum = 0, out_y = 1, attr_eps = 0 };
}
namespace op_linear_silu_mul {
enum : int { in_x = 0, in_gate_weight = 1, in_up_weight = 2, in_gate_bias = 3, in_up_bias = 4, out_y = 0, out_up = 1 };
}
namespace op_rope_kv_write {
enum : int { in_qkv = 0, in_positions = 1, in_table = 2, in_slot_mapping = 3, in_q_norm = 4, in_k_norm = 5, out_q = 0, attr_queries = 0, attr_head_dim = 1, attr_rotary_dim = 2, attr_interleaved = 3, attr_eps = 4, attr_layer = 5 };
}

struct OpInfo {
  const char* name;
  int inputs;
  int outputs;
  int attrs;
  // Bit i: input i may be absent; input i is a weight; input i is a step input; input i is the matrix of a linear.
  unsigned optional;
  unsigned weights;
  unsigned step_inputs;
  unsigned packed;
};

constexpr int kOpCount = 12;
constexpr OpInfo kOps[kOpCount] = {
    {"embedding", 2, 1, 0, 0, 2, 1, 0},
    {"rms_norm", 2, 1, 1, 0, 2, 0, 0},
    {"linear", 3, 1, 0, 4, 6, 0, 2},
    {"rope", 3, 1, 3, 0, 4, 2, 0},
    {"kv_write", 3, 0, 1, 0, 0, 4, 0},
    {"paged_attention", 3, 1, 7, 6, 6, 0, 0},
    {"add", 2, 1, 0, 0, 0, 0, 0},
    {"silu_mul", 2, 1, 0, 0, 0, 0, 0},
    {"gather_rows", 2, 1, 0, 0, 0, 2, 0},
    {"add_rms_norm", 3, 2, 1, 0, 4, 0, 0},
    {"linear_silu_mul", 5, 2, 0, 24, 30, 0, 6},
    {"rope_kv_write", 6, 1, 6, 48, 52, 10, 0},
};

}  // namespace mill
