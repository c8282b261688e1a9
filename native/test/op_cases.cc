// Every case of the op table at every level, against the numbers of the reference backend.
#include <cmath>
#include <cstring>
#include <fstream>
#include <memory>

#include "test.h"

namespace mill::test {
namespace {

struct Operand {
  int kind;  // 0 absent, 1 fp32, 2 int32
  int64_t rows;
  int64_t width;
  std::vector<float> floats;
  std::vector<int32_t> ints;
};

struct OpCase {
  int op;
  int64_t sizes[3];
  WeightType type;
  double tolerance;
  std::vector<double> attrs;
  std::vector<Operand> inputs;
  std::vector<Operand> outputs;
  bool uses_kv = false;
  KvShape kv;
  int64_t max_blocks_per_seq = 1;
  std::vector<float> keys, values, expected_keys, expected_values;
  std::vector<int32_t> positions, slot_mapping, query_starts, seq_lens, block_tables;
};

class Reader {
 public:
  explicit Reader(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    check(file.good(), "cannot open");
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    check(!bytes_.empty(), "empty");
  }
  bool empty() const { return at_ == bytes_.size(); }
  double number() {
    double x;
    take(&x, 8);
    return x;
  }
  int64_t integer() { return static_cast<int64_t>(number()); }
  template <class T>
  std::vector<T> array() {
    std::vector<T> values(static_cast<size_t>(integer()));
    take(values.data(), values.size() * 4);
    return values;
  }

 private:
  void take(void* to, size_t bytes) {
    check(bytes <= bytes_.size() - at_, "truncated");
    if (bytes > 0) std::memcpy(to, bytes_.data() + at_, bytes);
    at_ += bytes;
  }
  std::vector<char> bytes_;
  size_t at_ = 0;
};

void read_kv(Reader& reader, OpCase& c) {
  c.uses_kv = reader.integer() != 0;
  c.kv = {1, 1, 1, KvType::f32, 16, 1};
  if (!c.uses_kv) return;
  c.kv.type = static_cast<KvType>(reader.integer());
  c.kv.block_size = reader.integer();
  c.kv.kv_heads = reader.integer();
  c.kv.head_dim = reader.integer();
  c.max_blocks_per_seq = reader.integer();
  for (auto* data : {&c.keys, &c.values, &c.expected_keys, &c.expected_values}) *data = reader.array<float>();
  for (auto* data : {&c.positions, &c.slot_mapping, &c.query_starts, &c.seq_lens, &c.block_tables}) *data = reader.array<int32_t>();
  c.kv.num_blocks = static_cast<int64_t>(c.keys.size()) / (c.kv.block_size * c.kv.kv_heads * c.kv.head_dim);
}

OpCase read_case(Reader& reader) {
  OpCase c;
  c.op = static_cast<int>(reader.integer());
  for (int64_t& size : c.sizes) size = reader.integer();
  c.type = static_cast<WeightType>(reader.integer());
  c.tolerance = reader.number();
  for (int64_t n = reader.integer(); n > 0; n--) c.attrs.push_back(reader.number());
  for (int64_t n = reader.integer(); n > 0; n--) {
    Operand operand{static_cast<int>(reader.integer()), reader.integer(), reader.integer(), {}, {}};
    if (operand.kind == 1) operand.floats = reader.array<float>();
    if (operand.kind == 2) operand.ints = reader.array<int32_t>();
    c.inputs.push_back(std::move(operand));
  }
  for (int64_t n = reader.integer(); n > 0; n--) {
    Operand operand{1, 0, reader.integer(), {}, {}};
    operand.floats = reader.array<float>();
    c.outputs.push_back(std::move(operand));
  }
  read_kv(reader, c);
  return c;
}

// Values: inputs, outputs, then a row of logits that nothing writes.
Program one_call(const OpCase& c) {
  const OpInfo& info = kOps[c.op];
  const bool gathers = static_cast<Op>(c.op) == Op::gather_rows;
  Program program;
  OpCall call{static_cast<Op>(c.op), {}, {}, c.attrs};
  const auto add = [&](ValueKind kind, Rows rows, int64_t width) {
    const int64_t offset = kind == ValueKind::temporary ? program.arena_bytes : 0;
    if (kind == ValueKind::temporary) program.arena_bytes += (c.sizes[static_cast<int>(rows)] * width * 4 + 63) / 64 * 64;
    program.values.push_back({kind, StepInput::token_ids, rows, width, offset});
    return static_cast<int32_t>(program.values.size()) - 1;
  };
  for (int i = 0; i < info.inputs; i++) {
    const unsigned mask = 1u << i;
    const ValueKind kind = info.weights & mask ? ValueKind::weight : info.step_inputs & mask ? ValueKind::step_input : ValueKind::temporary;
    const int32_t id = add(kind, Rows::T, c.inputs[static_cast<size_t>(i)].width);
    call.inputs.push_back(c.inputs[static_cast<size_t>(i)].kind == 0 ? -1 : id);
  }
  for (const Operand& output : c.outputs) call.outputs.push_back(add(ValueKind::temporary, gathers ? Rows::R : Rows::T, output.width));
  program.logits = add(ValueKind::temporary, Rows::R, 1);
  program.vocab = 1;
  const StepInput names[] = {StepInput::token_ids, StepInput::positions, StepInput::slot_mapping, StepInput::logit_rows};
  for (int i = 0; i < info.inputs; i++) {
    Value& value = program.values[static_cast<size_t>(i)];
    if (value.kind != ValueKind::step_input) continue;
    value.input = call.op == Op::embedding ? names[0] : call.op == Op::rope ? names[1] : call.op == Op::kv_write || (call.op == Op::rope_kv_write && i == op_rope_kv_write::in_slot_mapping) ? names[2] : call.op == Op::rope_kv_write ? names[1] : names[3];
  }
  program.calls.push_back(call);
  return program;
}

double normalised_error(const std::vector<float>& expected, const float* actual) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); i++) {
    // Cache slots outside the sequences hold NaN on purpose.
    if (std::isnan(expected[i]) && std::isnan(actual[i])) continue;
    const double difference = static_cast<double>(actual[i]) - static_cast<double>(expected[i]);
    error += difference * difference;
    norm += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
  }
  return norm > 0 ? error / norm : error;
}

void fill(Model& model, const OpCase& c) {
  for (size_t i = 0; i < c.inputs.size(); i++) {
    const Operand& input = c.inputs[i];
    const int32_t id = static_cast<int32_t>(i);
    if (input.kind != 1) continue;
    if (!(kOps[c.op].weights >> i & 1u)) std::copy(input.floats.begin(), input.floats.end(), model.temporary(id));
    else if (kOps[c.op].packed >> i & 1u) model.set_linear(id, input.floats.data(), input.rows, input.width, c.type);
    else model.set_dense(id, input.floats.data(), input.rows, input.width);
  }
  if (c.uses_kv) model.write_kv(0, c.keys.data(), c.values.data());
}

void run_case(const OpCase& c, const KernelTable& kernels) {
  Model model(kernels, one_call(c), c.kv, {c.sizes[0], std::max<int64_t>(1, c.sizes[1]), std::max<int64_t>(1, c.sizes[2])}, 2);
  fill(model, c);
  model.finish_loading();
  const std::vector<int32_t> zeros(static_cast<size_t>(std::max<int64_t>({c.sizes[0], c.sizes[1] + 1, c.sizes[2]})));
  const int32_t* own = zeros.data();
  for (const Operand& input : c.inputs) {
    if (input.kind == 2) own = input.ints.data();
  }
  const auto table = [&](const std::vector<int32_t>& data) { return data.empty() ? own : data.data(); };
  Step step{c.sizes[0], std::max<int64_t>(1, c.sizes[1]), c.sizes[2], c.max_blocks_per_seq, own, table(c.positions), table(c.slot_mapping), table(c.query_starts),
            table(c.seq_lens), table(c.block_tables), own};
  model.check_step(step);
  model.run(step);
  for (size_t i = 0; i < c.outputs.size(); i++) {
    const double error = normalised_error(c.outputs[i].floats, model.temporary(static_cast<int32_t>(c.inputs.size() + i)));
    check(error <= c.tolerance, "error " + std::to_string(error) + " above " + std::to_string(c.tolerance));
  }
  if (!c.uses_kv) return;
  std::vector<float> keys(c.keys.size()), values(c.values.size());
  model.read_kv(0, keys.data(), values.data());
  check(normalised_error(c.expected_keys, keys.data()) <= c.tolerance, "the keys differ");
  check(normalised_error(c.expected_values, values.data()) <= c.tolerance, "the values differ");
}

}  // namespace

void add_op_cases(const std::string& path) {
  Reader reader(path);
  for (int index = 0; !reader.empty(); index++) {
    const auto c = std::make_shared<OpCase>(read_case(reader));
    for (const KernelTable* kernels : levels()) {
      tests().push_back({std::string(kOps[c->op].name) + " case " + std::to_string(index) + " " + kernels->name, [=] { run_case(*c, *kernels); }});
    }
  }
}

}  // namespace mill::test
