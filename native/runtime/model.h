// A loaded model: program, packed weights, KV memory, scratch and the thread team that runs steps over them.
#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mapped_file.h"
#include "pack.h"
#include "packed_writer.h"
#include "program.h"
#include "region.h"
#include "sampling.h"
#include "thread_team.h"
#include "work_shares.h"

namespace mill {

class Model {
 public:
  // Checks the program as if it came from a stranger; throws Failure(assertion) naming the rule it breaks.
  Model(const KernelTable& kernels, Program program, const KvShape& kv, const Limits& limits, int threads, const Placement& placement = {});

  struct FilePart {
    std::string name;
    std::string path;
    uint64_t offset;
    uint64_t bytes;
    WeightType type;
    int64_t rows;
  };

  // Weights, by value id. `width` is the second dimension (1 for vectors).
  void load_linear(int32_t value, const std::vector<FilePart>& parts, int64_t width, WeightType type);
  void load_dense(int32_t value, const std::vector<FilePart>& parts, int64_t width);
  // `checked`: its elements are known to be finite.
  void load_mapped(int32_t value, const FilePart& part, int64_t width, bool checked);
  // A linear that save_packed wrote at `offset`; Failure(model_files_invalid) when the file does not reach that far.
  void map_packed(int32_t value, const std::string& path, uint64_t offset, int64_t rows, int64_t width, WeightType type);
  void set_linear(int32_t value, const float* data, int64_t rows, int64_t width, WeightType type);
  void set_dense(int32_t value, const float* data, int64_t rows, int64_t width);
  // A table of zeros, and rows of it from `begin`.
  void reserve_table(int32_t value, int64_t rows, int64_t width);
  void write_table(int32_t value, int64_t begin, const float* data, int64_t elements);
  // Every weight is there and fits the calls that use it; files no longer needed are closed.
  void finish_loading();

  struct PackedPlace {
    int32_t value;
    uint64_t offset;
  };
  // Begins to write packed linears to a file, in the order of `places`; see PackedWriter for what it throws.
  void save_packed(const std::string& temporary, const std::string& path, std::string header, const std::vector<PackedPlace>& places, uint64_t bytes);
  // Null when nothing was begun.
  const PackedWriter* packed_writer() const { return packed_writer_.get(); }

  // Throws Failure(assertion) when the step breaks a limit, before anything is touched.
  void check_step(const Step& step) const;
  void run(const Step& step) { run_calls(step, 0, program_.calls.size()); }
  // Calls [begin, end) of a checked step.
  void run_calls(const Step& step, size_t begin, size_t end);
  struct LogitDraw {
    int64_t row;
    DrawParams params;
    double u;
  };
  // All calls, then a token for each of `count` logit rows into `ids`; every row as if it were alone.
  void run_and_draw(const Step& step, const LogitDraw* draws, int64_t count, int32_t* ids);
  // From now on a run writes into `marks[i + 1]` when call i had ended on all threads, in ms since the run began; null = stop.
  void profile(double* marks) { marks_ = marks; }

  float* temporary(int32_t value) const;
  // The memory of all temporaries, for who must keep it beyond the model.
  const std::shared_ptr<Region>& arena() const { return arena_; }
  int64_t width(int32_t value) const;
  Rows rows(int32_t value) const;
  const Program& program() const { return program_; }
  const Limits& limits() const { return limits_; }
  const KernelTable& kernels() const { return kernels_; }
  const KvShape& kv_shape() const { return kv_; }
  int threads() const { return team_.members(); }

  // One layer's cache as [slots, kv_heads * head_dim] fp32.
  void write_kv(int64_t layer, const float* keys, const float* values);
  void read_kv(int64_t layer, float* keys, float* values) const;

  struct Memory {
    int64_t weights = 0;
    int64_t kv = 0;
    int64_t scratch = 0;
  };
  Memory memory() const;
  RowScratch& row_scratch() { return row_scratch_[0]; }

 private:
  struct Weight {
    bool loaded = false;
    int64_t rows = 0;
    int64_t width = 0;
    LinearWeight linear;                // a linear's
    Region dense;                       // fp32
    WeightType table_type = WeightType::f32;
    const void* table = nullptr;        // dense or mapped
  };

  void check_program() const;
  void check_call(const OpCall& call) const;
  void check_shapes(const OpCall& call) const;
  void find_step_bounds();
  void check_rope_kv_write(const OpCall& call) const;
  void check_weights(const OpCall& call) const;
  void check_linear(int32_t x, int32_t matrix, int32_t bias, int32_t y) const;
  bool is_vector(int32_t value, int64_t elements) const;
  void check_sequence(const Step& step, int64_t s) const;
  std::vector<WeightPart> map_parts(const std::vector<FilePart>& parts, int64_t width);
  MappedFile& file(const std::string& path);
  Weight& weight_slot(int32_t value);
  const Weight& weight(int32_t value) const;
  KvLayer layer(int64_t index) const;
  void size_scratch();
  void prefault_packed();
  void size_partials();

  // One member's piece of work: an attention item, or some splits of the one that `cut` names (-1 = none).
  struct AttentionWork {
    AttentionItem item;
    int32_t cut;
    int64_t cost;
  };
  // An item cut by splits; who ends its last piece merges them.
  struct CutItem {
    AttentionItem whole;
    int32_t pieces;
  };
  int32_t draw(const LogitDraw& draw, int member);
  void plan_attention(const Step& step);
  int64_t attention_cost(const Step& step, const AttentionItem& item) const;
  void cut_long_items(const Step& step);
  // One member's part of a range of calls.
  struct Share {
    int member;
    int64_t attention_calls;  // so far
    int64_t linear_calls;     // so far
    bool prepared;            // the next linear's input is
    const OpCall* next;       // after this call, null = none
  };
  void execute(const Step& step, const OpCall& call, Share& share);
  void run_embedding(const Step& step, const OpCall& call, const Share& share);
  void run_rms_norm(const Step& step, const OpCall& call, Share& share);
  void run_linear(const Step& step, const OpCall& call, Share& share);
  void run_logits(const LinearArgs& args, Share& share);
  void run_rope(const Step& step, const OpCall& call, const Share& share);
  void run_kv_write(const Step& step, const OpCall& call, const Share& share);
  void run_paged_attention(const Step& step, const OpCall& call, Share& share);
  void run_attention_work(const AttentionArgs& args, const AttentionWork& work, void* scratch);
  void run_add(const Step& step, const OpCall& call, const Share& share);
  void run_silu_mul(const Step& step, const OpCall& call, const Share& share);
  void run_gather_rows(const Step& step, const OpCall& call, const Share& share);
  void run_add_rms_norm(const Step& step, const OpCall& call, Share& share);
  void run_linear_silu_mul(const Step& step, const OpCall& call, Share& share);
  void run_rope_kv_write(const Step& step, const OpCall& call, const Share& share);
  std::optional<LinearArgs> next_linear(const Step& step, const OpCall* next, int32_t y, int member) const;
  template <class Write>
  void write_rows(const Step& step, int32_t y, Share& share, const Write& write);
  void prepare_linear(const LinearArgs& args, Share& share);
  int64_t least_panels(const LinearArgs& args) const;
  template <class Visit>
  void take_panels(const LinearArgs& args, Share& share, const Visit& visit);
  LinearArgs linear_args(const Step& step, int32_t x, int32_t matrix, int32_t bias, int32_t y, int member) const;
  LinearArgs linear_args(const Step& step, const OpCall& call, int member) const;
  LinearArgs gate_args(const Step& step, const OpCall& call, int member) const;
  void* thread_scratch(int member) const { return thread_scratch_.data() + member * thread_scratch_bytes_; }
  const int32_t* step_input(const Step& step, int32_t value) const;
  const float* optional_vector(int32_t value) const;

  const KernelTable& kernels_;
  const Program program_;
  const KvShape kv_;
  const Limits limits_;
  int64_t heads_ = 0;  // most query heads of an attention call; 0 = none
  // What a step's inputs must stay below; 0 where no call reads them.
  struct {
    int64_t token_ids = 0;
    int64_t positions = 0;
    int64_t slots = 0;
    bool logit_rows = false;
  } bounds_;
  std::vector<Weight> weights_;
  std::map<std::string, std::unique_ptr<MappedFile>> files_;
  std::vector<std::string> kept_files_;
  // After the weights that it reads.
  std::unique_ptr<PackedWriter> packed_writer_;
  Region keys_;
  Region values_;
  std::shared_ptr<Region> arena_;
  Region prepared_;
  Region maxima_;  // of the logits, [rows][blocks of kMaximaBlock]; empty when no linear ends the program
  Region thread_scratch_;
  int64_t thread_scratch_bytes_ = 0;
  std::vector<RowScratch> row_scratch_;  // of each member
  std::vector<AttentionWork> work_;
  std::vector<CutItem> cuts_;
  std::unique_ptr<std::atomic<int32_t>[]> pieces_left_;  // of each CutItem
  Region partials_;
  double* marks_ = nullptr;
  // Of the attention calls of a run, even and odd ones: one is taken from while the other is set back.
  alignas(64) std::atomic<size_t> next_work_[2]{};
  WorkShares panel_shares_;
  const bool numa_;  // members are on several nodes
  // Last: its threads end before what they use goes.
  ThreadTeam team_;
};

}  // namespace mill
