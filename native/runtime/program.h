// A Program as the runtime sees it: src/program/program.ts without names.
#pragma once
#include <cstdint>
#include <vector>

#include "../generated/ops.h"
#include "../kernels/kernel_table.h"

namespace mill {

enum class ValueKind : int32_t { step_input = 0, weight = 1, temporary = 2 };

// The sizes of a step; a temporary has as many rows as one of them.
enum class Rows : int32_t { T = 0, S = 1, R = 2 };

struct Value {
  ValueKind kind;
  StepInput input;      // step_input
  Rows rows;            // temporary
  int64_t width;        // temporary: elements of a row
  int64_t offset;       // temporary: bytes into the scratch arena
};

struct OpCall {
  Op op;
  std::vector<int32_t> inputs;  // value ids, -1 where absent
  std::vector<int32_t> outputs;
  std::vector<double> attrs;
};

struct KvShape {
  int64_t layers = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  KvType type = KvType::f32;
  int64_t block_size = 0;
  int64_t num_blocks = 0;
};

struct Limits {
  int64_t tokens = 0;
  int64_t sequences = 0;
  int64_t logit_rows = 0;
  int64_t of(Rows rows) const { return rows == Rows::T ? tokens : rows == Rows::S ? sequences : logit_rows; }
};

struct Program {
  std::vector<Value> values;
  std::vector<OpCall> calls;
  int32_t logits = -1;  // value id
  int64_t vocab = 0;
  int64_t arena_bytes = 0;
};

// One step's sizes and tables; the pointers are the caller's and live as long as the call.
struct Step {
  int64_t tokens = 0;
  int64_t sequences = 0;
  int64_t logit_rows = 0;
  int64_t max_blocks_per_seq = 0;
  const int32_t* token_ids = nullptr;
  const int32_t* positions = nullptr;
  const int32_t* slot_mapping = nullptr;
  const int32_t* query_starts = nullptr;
  const int32_t* seq_lens = nullptr;
  const int32_t* block_tables = nullptr;
  const int32_t* logit_row_ids = nullptr;
  int64_t of(Rows rows) const { return rows == Rows::T ? tokens : rows == Rows::S ? sequences : logit_rows; }
};

}  // namespace mill
