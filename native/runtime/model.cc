#include "model.h"

#include <algorithm>

#include "convert.h"
#include "failure.h"
#include "numa.h"

namespace mill {
namespace {

constexpr size_t kAlign = 64;

size_t aligned(int64_t bytes) { return (static_cast<size_t>(bytes) + kAlign - 1) / kAlign * kAlign; }

float kv_element(KvType type, const uint8_t* unit, int64_t at) {
  switch (type) {
    case KvType::f32: return reinterpret_cast<const float*>(unit)[at];
    case KvType::bf16: return bf16_to_float(reinterpret_cast<const uint16_t*>(unit)[at]);
    case KvType::e4m3: return e4m3_to_float(unit[at]);
    case KvType::e5m2: return f16_to_float(static_cast<uint16_t>(unit[at] << 8));
    case KvType::i8: return static_cast<int8_t>(unit[at]);
  }
  return 0;
}

float kv_scale(const KvLayer& kv, const uint8_t* scales, int64_t at) { return kv.type != KvType::i8 ? 1 : bf16_to_float(reinterpret_cast<const uint16_t*>(scales)[at]); }

int64_t total_rows(const std::vector<Model::FilePart>& parts) {
  int64_t rows = 0;
  for (const auto& part : parts) rows += part.rows;
  return rows;
}

}  // namespace

Model::Model(const KernelTable& kernels, Program program, const KvShape& kv, const Limits& limits, int threads, const Placement& placement)
    : kernels_(kernels), program_(std::move(program)), kv_(kv), limits_(limits), weights_(program_.values.size()), row_scratch_(static_cast<size_t>(std::max(1, threads))), panel_shares_(std::max(1, threads)), numa_(several_nodes(placement.nodes)), team_(threads, placement) {
  check_program();
  const KvLayer empty = kv_layer(kv_.type, kv_.block_size, kv_.num_blocks, kv_.kv_heads, kv_.head_dim, nullptr, nullptr);
  keys_ = Region(static_cast<size_t>(kv_.layers * empty.key_bytes()), "the KV cache");
  values_ = Region(static_cast<size_t>(kv_.layers * empty.value_bytes()), "the KV cache");
  arena_ = std::make_shared<Region>(static_cast<size_t>(program_.arena_bytes), "activations");
  // Any member may read any sequence.
  if (numa_) {
    interleave(keys_.data(), keys_.bytes(), placement.nodes);
    interleave(values_.data(), values_.bytes(), placement.nodes);
  }
  thread_scratch_bytes_ = static_cast<int64_t>(aligned(std::max({attention_scratch_bytes(kv_.head_dim), kv_.kv_heads * kv_.head_dim * 4, linear_scratch_bytes()})));
  thread_scratch_ = Region(static_cast<size_t>(thread_scratch_bytes_ * team_.members()), "thread scratch");
  size_partials();
}

// ---- weights

Model::Weight& Model::weight_slot(int32_t value) {
  const bool known = value >= 0 && static_cast<size_t>(value) < program_.values.size();
  require(known && program_.values[static_cast<size_t>(value)].kind == ValueKind::weight, "a weight is loaded into a weight value");
  return weights_[static_cast<size_t>(value)];
}

const Model::Weight& Model::weight(int32_t value) const { return weights_[static_cast<size_t>(value)]; }

MappedFile& Model::file(const std::string& path) {
  std::unique_ptr<MappedFile>& slot = files_[path];
  if (!slot) slot = std::make_unique<MappedFile>(path);
  return *slot;
}

std::vector<WeightPart> Model::map_parts(const std::vector<FilePart>& parts, int64_t width) {
  std::vector<WeightPart> mapped;
  for (const FilePart& part : parts) {
    const uint64_t elements = static_cast<uint64_t>(part.rows) * static_cast<uint64_t>(width);
    require(part.rows > 0 && width > 0 && elements * static_cast<uint64_t>(element_bytes(part.type)) == part.bytes, "a tensor's bytes are its elements");
    mapped.push_back({part.name, file(part.path).range(part.offset, part.bytes), part.type, part.rows});
  }
  require(!mapped.empty(), "a weight has tensors");
  return mapped;
}

void Model::load_linear(int32_t value, const std::vector<FilePart>& parts, int64_t width, WeightType type) {
  Weight& slot = weight_slot(value);
  // Its pages are given back while it is packed: source and packed weight are never in memory together.
  const auto drop = [&](int64_t begin, int64_t end) {
    for (const FilePart& part : parts) {
      const int64_t first = std::max<int64_t>(0, begin), last = std::min(part.rows, end), row = width * element_bytes(part.type);
      if (first < last) file(part.path).drop(part.offset + static_cast<uint64_t>(first * row), static_cast<uint64_t>((last - first) * row));
      begin -= part.rows;
      end -= part.rows;
    }
  };
  slot.linear = pack_linear(team_, map_parts(parts, width), width, type, {numa_, drop});
  slot.rows = total_rows(parts);
  slot.width = width;
  slot.loaded = true;
}

void Model::load_dense(int32_t value, const std::vector<FilePart>& parts, int64_t width) {
  Weight& slot = weight_slot(value);
  const std::vector<WeightPart> mapped = map_parts(parts, width);
  slot.rows = total_rows(parts);
  slot.width = width;
  slot.dense = Region(static_cast<size_t>(slot.rows * width * 4), "weights");
  widen_parts(mapped, width, slot.dense.as<float>());
  slot.table = slot.dense.data();
  slot.loaded = true;
}

void Model::load_mapped(int32_t value, const FilePart& part, int64_t width, bool checked) {
  Weight& slot = weight_slot(value);
  const WeightPart mapped = map_parts({part}, width).front();
  require(reinterpret_cast<uintptr_t>(mapped.data) % static_cast<uintptr_t>(element_bytes(part.type)) == 0, "a mapped tensor is aligned");
  const int64_t chunks = checked ? 0 : std::min<int64_t>(part.rows, 64);
  std::atomic<int64_t> next{0};
  team_.run([&](int) {
    for (int64_t c = next++; c < chunks; c = next++) {
      check_finite(mapped, part.rows * c / chunks, part.rows * (c + 1) / chunks, width);
    }
  });
  if (!checked) file(part.path).drop(part.offset, part.bytes);
  slot.rows = part.rows;
  slot.width = width;
  slot.table = mapped.data;
  slot.table_type = part.type;
  slot.loaded = true;
  kept_files_.push_back(part.path);
}

void Model::map_packed(int32_t value, const std::string& path, uint64_t offset, int64_t rows, int64_t width, WeightType type) {
  Weight& slot = weight_slot(value);
  require(offset % 64 == 0, "a packed weight is aligned");
  const bool first = std::find(kept_files_.begin(), kept_files_.end(), path) == kept_files_.end();
  if (first) file(path).keep();
  slot.linear = view_packed(file(path).range(offset, packed_bytes(rows, width, type)), rows, width, type);
  // The pages of a file lie where somebody first read it.
  if (numa_) {
    slot.linear = copy_packed(team_, slot.linear);
    file(path).drop(offset, packed_bytes(rows, width, type));
  }
  slot.rows = rows;
  slot.width = width;
  slot.loaded = true;
  if (first) kept_files_.push_back(path);
}

void Model::reserve_table(int32_t value, int64_t rows, int64_t width) {
  Weight& slot = weight_slot(value);
  slot.dense = Region(static_cast<size_t>(rows * width * 4), "weights");
  slot.rows = rows;
  slot.width = width;
  slot.table = slot.dense.data();
  slot.loaded = true;
}

void Model::write_table(int32_t value, int64_t begin, const float* data, int64_t elements) {
  Weight& slot = weight_slot(value);
  require(slot.dense.data() && slot.width > 0 && elements % slot.width == 0, "whole rows of a table are written");
  require(begin >= 0 && begin <= slot.rows && elements / slot.width <= slot.rows - begin, "a table has the rows that are written");
  std::copy_n(data, elements, slot.dense.as<float>() + begin * slot.width);
}

void Model::save_packed(const std::string& temporary, const std::string& path, std::string header, const std::vector<PackedPlace>& places, uint64_t bytes) {
  require(!packed_writer_, "packed weights are saved once");
  std::vector<PackedWriter::Piece> pieces;
  for (const PackedPlace& place : places) {
    const LinearWeight& linear = weight_slot(place.value).linear;
    require(linear.bytes && place.offset % 64 == 0, "what is saved is a packed weight, aligned");
    pieces.push_back({place.offset, linear.bytes, packed_bytes(linear.packed.n, linear.packed.k, linear.packed.type)});
  }
  packed_writer_ = std::make_unique<PackedWriter>(temporary, path, std::move(header), std::move(pieces), bytes);
}

void Model::set_linear(int32_t value, const float* data, int64_t rows, int64_t width, WeightType type) {
  Weight& slot = weight_slot(value);
  slot.linear = pack_linear(team_, {{"given", reinterpret_cast<const uint8_t*>(data), WeightType::f32, rows}}, width, type, {numa_, {}});
  slot.rows = rows;
  slot.width = width;
  slot.loaded = true;
}

void Model::set_dense(int32_t value, const float* data, int64_t rows, int64_t width) {
  Weight& slot = weight_slot(value);
  slot.dense = Region(static_cast<size_t>(rows * width * 4), "weights");
  widen_parts({{"given", reinterpret_cast<const uint8_t*>(data), WeightType::f32, rows}}, width, slot.dense.as<float>());
  slot.rows = rows;
  slot.width = width;
  slot.table = slot.dense.data();
  slot.loaded = true;
}

void Model::finish_loading() {
  for (const OpCall& call : program_.calls) check_weights(call);
  for (auto& [path, file] : files_) {
    if (std::find(kept_files_.begin(), kept_files_.end(), path) == kept_files_.end()) file.reset();
  }
  find_step_bounds();
  size_scratch();
  prefault_packed();
}

// What is mapped is read at every step: better at once and by all members than by page faults of the first step.
void Model::prefault_packed() {
  constexpr int64_t kGrab = 32 << 20;
  for (const Weight& weight : weights_) {
    const LinearWeight& linear = weight.linear;
    if (!linear.bytes || linear.memory.data()) continue;
    const int64_t bytes = static_cast<int64_t>(packed_bytes(linear.packed.n, linear.packed.k, linear.packed.type));
    std::atomic<int64_t> next{0};
    team_.run([&](int) {
      for (int64_t at = next.fetch_add(kGrab); at < bytes; at = next.fetch_add(kGrab)) prefault(linear.bytes + at, static_cast<size_t>(std::min(kGrab, bytes - at)));
    });
  }
}

void Model::size_scratch() {
  int64_t bytes = 0;
  for (const OpCall& call : program_.calls) {
    if (!kOps[static_cast<int>(call.op)].packed) continue;
    // The input of every op with linear weights comes first.
    const int32_t x = call.inputs[0];
    bytes = std::max(bytes, prepared_bytes(limits_.of(this->rows(x)), width(x)));
  }
  prepared_ = Region(static_cast<size_t>(bytes), "activations");
  const OpCall& last = program_.calls.back();
  if (last.op != Op::linear || last.outputs[op_linear::out_y] != program_.logits) return;
  const int64_t blocks = (program_.vocab + kMaximaBlock - 1) / kMaximaBlock;
  maxima_ = Region(static_cast<size_t>(limits_.of(this->rows(program_.logits)) * blocks * 4), "activations");
}

Model::Memory Model::memory() const {
  Memory memory;
  for (const Weight& weight : weights_) {
    const PackedLinear& packed = weight.linear.packed;
    if (weight.linear.bytes) memory.weights += static_cast<int64_t>(packed_bytes(packed.n, packed.k, packed.type));
    if (weight.table) memory.weights += weight.rows * weight.width * element_bytes(weight.table_type);
  }
  memory.kv = static_cast<int64_t>(keys_.bytes() + values_.bytes());
  memory.scratch = static_cast<int64_t>(arena_->bytes() + prepared_.bytes() + maxima_.bytes() + thread_scratch_.bytes() + partials_.bytes());
  for (const RowScratch& scratch : row_scratch_) memory.scratch += scratch.bytes();
  return memory;
}

// ---- values

float* Model::temporary(int32_t value) const { return arena_->as<float>(static_cast<size_t>(program_.values[static_cast<size_t>(value)].offset)); }

int64_t Model::width(int32_t value) const { return program_.values[static_cast<size_t>(value)].width; }

Rows Model::rows(int32_t value) const { return program_.values[static_cast<size_t>(value)].rows; }

// ---- KV

KvLayer Model::layer(int64_t index) const {
  KvLayer kv = kv_layer(kv_.type, kv_.block_size, kv_.num_blocks, kv_.kv_heads, kv_.head_dim, keys_.data(), values_.data());
  kv.keys += index * kv.key_bytes();
  kv.values += index * kv.value_bytes();
  return kv;
}

void Model::write_kv(int64_t index, const float* keys, const float* values) {
  require(index >= 0 && index < kv_.layers, "a KV layer exists");
  const int64_t slots = kv_.num_blocks * kv_.block_size;
  std::vector<int32_t> all(static_cast<size_t>(slots));
  for (int64_t slot = 0; slot < slots; slot++) all[static_cast<size_t>(slot)] = static_cast<int32_t>(slot);
  kernels_.kv_write({keys, values, all.data(), layer(index)}, 0, slots);
}

void Model::read_kv(int64_t index, float* keys, float* values) const {
  require(index >= 0 && index < kv_.layers, "a KV layer exists");
  const KvLayer kv = layer(index);
  for (int64_t slot = 0; slot < kv_.num_blocks * kv_.block_size; slot++) {
    const int64_t block = slot / kv.block_size, offset = slot % kv.block_size, unit = offset / kv.unit, at = offset % kv.unit;
    for (int64_t head = 0; head < kv.kv_heads; head++) {
      const uint8_t* from_keys = kv.key_unit(block, head, unit);
      const uint8_t* from_values = kv.value_unit(block, head, unit);
      const float key_scale = kv_scale(kv, from_keys + kv.key_scales_at, at), value_scale = kv_scale(kv, from_values + kv.value_scales_at, at);
      for (int64_t d = 0; d < kv.head_dim; d++) {
        const int64_t to = (slot * kv.kv_heads + head) * kv.head_dim + d;
        keys[to] = kv_element(kv.type, from_keys, d * kv.unit + at) * key_scale;
        values[to] = kv_element(kv.type, from_values, at * kv.value_stride + d) * value_scale;
      }
    }
  }
}

}  // namespace mill
