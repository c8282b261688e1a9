#include "model_object.h"

#include "../runtime/cpuid.h"
#include "../runtime/sampling.h"
#include "arguments.h"
#include "program_reader.h"

namespace mill {
namespace {

WeightType weight_type(const Napi::Value& value, bool quantised) {
  const std::string name = text(value, "a weight type");
  if (name == "float32") return WeightType::f32;
  if (name == "bfloat16") return WeightType::bf16;
  if (name == "float16") return WeightType::f16;
  if (name == "int8" && quantised) return WeightType::i8;
  if (name == "int4_g32" && quantised) return WeightType::i4_g32;
  if (name == "int4_g64" && quantised) return WeightType::i4_g64;
  if (name == "int4_g128" && quantised) return WeightType::i4_g128;
  throw Failure("assertion", "a weight type is known");
}

int32_t value_id(const Napi::Value& value) { return static_cast<int32_t>(integer(value, "a value id")); }

Model::FilePart file_part(const Napi::Value& value) {
  const Napi::Object part = object(value, "a tensor");
  const int64_t offset = integer(part.Get("offset"), "offset"), bytes = integer(part.Get("byteLength"), "byteLength");
  require(offset >= 0 && bytes > 0, "a tensor has bytes");
  return {text(part.Get("name"), "name"), text(part.Get("path"), "path"), static_cast<uint64_t>(offset), static_cast<uint64_t>(bytes),
          weight_type(part.Get("dtype"), false), integer(part.Get("rows"), "rows")};
}

std::vector<Model::FilePart> file_parts(const Napi::Value& value) {
  require(value.IsArray(), "tensors are an array");
  const Napi::Array array = value.As<Napi::Array>();
  std::vector<Model::FilePart> parts;
  for (uint32_t i = 0; i < array.Length(); i++) parts.push_back(file_part(array.Get(i)));
  return parts;
}

uint64_t file_offset(const Napi::Value& value) {
  const int64_t offset = integer(value, "a file offset");
  require(offset >= 0, "a file offset is not negative");
  return static_cast<uint64_t>(offset);
}

int64_t matrix_elements(int64_t rows, int64_t width) {
  require(rows > 0 && width > 0 && rows <= (int64_t{1} << 31) && width <= (int64_t{1} << 31), "a matrix has rows and columns");
  return rows * width;
}

void check_draw(const DrawParams& params) {
  require(params.top_k >= 0 && params.top_p > 0 && params.top_p <= 1 && params.min_p >= 0 && params.min_p <= 1, "sampling parameters are in range");
}

DrawParams draw_params(const Napi::CallbackInfo& info) {
  const DrawParams params{number(info[1], "temperature"), integer(info[2], "topK"), number(info[3], "topP"), number(info[4], "minP")};
  require(params.temperature > 0, "a temperature is above zero");
  check_draw(params);
  return params;
}

// Numbers of a row in bindDraws: temperature (0 = the largest), topK, topP, minP, u.
constexpr int64_t kDrawNumbers = 5;

Model::LogitDraw logit_draw(int64_t row, const double* numbers) {
  require(numbers[0] >= 0 && numbers[1] >= 0 && numbers[1] <= 9007199254740991.0, "sampling parameters are in range");
  const DrawParams params{numbers[0], static_cast<int64_t>(numbers[1]), numbers[2], numbers[3]};
  check_draw(params);
  return {row, params, numbers[4]};
}

}  // namespace

Napi::Function ModelObject::define(Napi::Env env) {
  return DefineClass(env, "Model",
                     {StaticMethod<&ModelObject::packed_bytes>("packedBytes"),
                      StaticValue("packVersion", Napi::Number::New(env, kPackVersion)),
                      InstanceMethod<&ModelObject::load_linear>("loadLinear"),
                      InstanceMethod<&ModelObject::load_dense>("loadDense"),
                      InstanceMethod<&ModelObject::load_mapped>("loadMapped"),
                      InstanceMethod<&ModelObject::map_packed>("mapPacked"),
                      InstanceMethod<&ModelObject::save_packed>("savePacked"),
                      InstanceMethod<&ModelObject::packed_state>("packedState"),
                      InstanceMethod<&ModelObject::reserve_table>("reserveTable"),
                      InstanceMethod<&ModelObject::write_table>("writeTable"),
                      InstanceMethod<&ModelObject::set_linear>("setLinear"),
                      InstanceMethod<&ModelObject::set_dense>("setDense"),
                      InstanceMethod<&ModelObject::finish_loading>("finishLoading"),
                      InstanceMethod<&ModelObject::bind_step>("bindStep"),
                      InstanceMethod<&ModelObject::bind_draws>("bindDraws"),
                      InstanceMethod<&ModelObject::run>("run"),
                      InstanceMethod<&ModelObject::run_calls>("runCalls"),
                      InstanceMethod<&ModelObject::profile>("profile"),
                      InstanceMethod<&ModelObject::logits>("logits"),
                      InstanceMethod<&ModelObject::read_value>("readValue"),
                      InstanceMethod<&ModelObject::write_value>("writeValue"),
                      InstanceMethod<&ModelObject::read_kv>("readKv"),
                      InstanceMethod<&ModelObject::write_kv>("writeKv"),
                      InstanceMethod<&ModelObject::memory>("memory"),
                      InstanceMethod<&ModelObject::log_sum_exp>("logSumExp"),
                      InstanceMethod<&ModelObject::argmax>("argmax"),
                      InstanceMethod<&ModelObject::top_k>("topK"),
                      InstanceMethod<&ModelObject::rank>("rank"),
                      InstanceMethod<&ModelObject::sample>("sample"),
                      InstanceMethod<&ModelObject::process>("process"),
                      InstanceMethod<&ModelObject::close>("close")});
}

// new Model({isa, threads, places, ownsThread, values, calls, attrs, logits, vocab, arenaBytes, kv, limits})
ModelObject::ModelObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ModelObject>(info) {
  guarded(info.Env(), [&] {
    const Napi::Object config = object(info[0], "the configuration");
    const std::string isa = text(config.Get("isa"), "isa");
    const KernelTable* kernels = find_isa(isa);
    if (!kernels) throw Failure("isa_unsupported", "This processor cannot run the instruction set " + isa + ".");
    const TeamConfig team = read_team(config);
    model_ = std::make_unique<Model>(*kernels, read_program(config), read_kv_shape(object(config.Get("kv"), "kv")), read_limits(object(config.Get("limits"), "limits")),
                                     team.threads, team.placement);
    return info.Env().Undefined();
  });
}

Model& ModelObject::model() const {
  if (!model_) throw Failure("assertion", "the model is closed");
  return *model_;
}

// loadLinear(value, tensors, width, type)
Napi::Value ModelObject::load_linear(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    model().load_linear(value_id(info[0]), file_parts(info[1]), integer(info[2], "width"), weight_type(info[3], true));
    return info.Env().Undefined();
  });
}

// loadDense(value, tensors, width)
Napi::Value ModelObject::load_dense(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    model().load_dense(value_id(info[0]), file_parts(info[1]), integer(info[2], "width"));
    return info.Env().Undefined();
  });
}

// loadMapped(value, tensor, width, checked)
Napi::Value ModelObject::load_mapped(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    model().load_mapped(value_id(info[0]), file_part(info[1]), integer(info[2], "width"), info[3].ToBoolean());
    return info.Env().Undefined();
  });
}

// packedBytes(rows, width, type)
Napi::Value ModelObject::packed_bytes(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const size_t bytes = mill::packed_bytes(integer(info[0], "rows"), integer(info[1], "width"), weight_type(info[2], true));
    return Napi::Number::New(info.Env(), static_cast<double>(bytes));
  });
}

// mapPacked(value, path, offset, rows, width, type)
Napi::Value ModelObject::map_packed(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    model().map_packed(value_id(info[0]), text(info[1], "path"), file_offset(info[2]), integer(info[3], "rows"), integer(info[4], "width"), weight_type(info[5], true));
    return info.Env().Undefined();
  });
}

// savePacked(temporary, path, header, values, offsets, bytes)
Napi::Value ModelObject::save_packed(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const Napi::Uint8Array header = typed_array<Napi::Uint8Array>(info[2], napi_uint8_array, 1, "header");
    const Napi::Float64Array values = typed_array<Napi::Float64Array>(info[3], napi_float64_array, 0, "values");
    const Napi::Float64Array offsets = typed_array<Napi::Float64Array>(info[4], napi_float64_array, static_cast<int64_t>(values.ElementLength()), "offsets");
    std::vector<Model::PackedPlace> places;
    for (size_t i = 0; i < values.ElementLength(); i++) {
      const double value = values.Data()[i], offset = offsets.Data()[i];
      require(value >= 0 && value < 2147483648.0 && offset >= 0 && offset < 9007199254740992.0, "a packed weight has a value and a place");
      places.push_back({static_cast<int32_t>(value), static_cast<uint64_t>(offset)});
    }
    std::string bytes(reinterpret_cast<const char*>(header.Data()), header.ElementLength());
    model().save_packed(text(info[0], "temporary"), text(info[1], "path"), std::move(bytes), places, file_offset(info[5]));
    return info.Env().Undefined();
  });
}

// packedState(): none, writing, done or failed
Napi::Value ModelObject::packed_state(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const PackedWriter* writer = model().packed_writer();
    const char* const names[] = {"writing", "done", "failed"};
    return Napi::String::New(info.Env(), writer ? names[static_cast<int>(writer->state())] : "none");
  });
}

// reserveTable(value, rows, width)
Napi::Value ModelObject::reserve_table(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const int64_t rows = integer(info[1], "rows"), width = integer(info[2], "width");
    matrix_elements(rows, width);
    model().reserve_table(value_id(info[0]), rows, width);
    return info.Env().Undefined();
  });
}

// writeTable(value, begin, data)
Napi::Value ModelObject::write_table(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const Napi::Float32Array data = typed_array<Napi::Float32Array>(info[2], napi_float32_array, 0, "data");
    model().write_table(value_id(info[0]), integer(info[1], "begin"), data.Data(), static_cast<int64_t>(data.ElementLength()));
    return info.Env().Undefined();
  });
}

// setLinear(value, data, rows, width, type)
Napi::Value ModelObject::set_linear(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const int64_t rows = integer(info[2], "rows"), width = integer(info[3], "width");
    model().set_linear(value_id(info[0]), floats(info[1], matrix_elements(rows, width), "weight"), rows, width, weight_type(info[4], true));
    return info.Env().Undefined();
  });
}

// setDense(value, data, rows, width)
Napi::Value ModelObject::set_dense(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const int64_t rows = integer(info[2], "rows"), width = integer(info[3], "width");
    model().set_dense(value_id(info[0]), floats(info[1], matrix_elements(rows, width), "weight"), rows, width);
    return info.Env().Undefined();
  });
}

Napi::Value ModelObject::finish_loading(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    model().finish_loading();
    return info.Env().Undefined();
  });
}

// bindStep(T, S, R, maxBlocksPerSeq, tokenIds, positions, slotMapping, queryStarts, seqLens, blockTables, logitRows): what every
// run from now on reads; the arrays are held, and what is in them is looked at in each run.
Napi::Value ModelObject::bind_step(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const Limits& limits = model().limits();
    step_ = Step();
    Step step;
    step.tokens = integer(info[0], "T");
    step.sequences = integer(info[1], "S");
    step.logit_rows = integer(info[2], "R");
    step.max_blocks_per_seq = integer(info[3], "maxBlocksPerSeq");
    require(step.tokens > 0 && step.tokens <= limits.tokens, "a step has between 1 and maxNumBatchedTokens tokens");
    require(step.sequences > 0 && step.sequences <= limits.sequences, "a step has between 1 and maxNumSeqs sequences");
    require(step.logit_rows >= 0 && step.logit_rows <= limits.logit_rows, "a step has at most maxLogitRows logit rows");
    require(step.max_blocks_per_seq >= 0 && step.max_blocks_per_seq <= (int64_t{1} << 31), "maxBlocksPerSeq is sensible");
    step.token_ids = int32s(info[4], step.tokens, "tokenIds");
    step.positions = int32s(info[5], step.tokens, "positions");
    step.slot_mapping = int32s(info[6], step.tokens, "slotMapping");
    step.query_starts = int32s(info[7], step.sequences + 1, "queryStarts");
    step.seq_lens = int32s(info[8], step.sequences, "seqLens");
    step.block_tables = int32s(info[9], step.sequences * step.max_blocks_per_seq, "blockTables");
    step.logit_row_ids = int32s(info[10], step.logit_rows, "logitRows");
    for (size_t i = 0; i < step_arrays_.size(); i++) step_arrays_[i] = Napi::Persistent(info[4 + i].As<Napi::Object>());
    step_ = step;
    return info.Env().Undefined();
  });
}

// bindDraws(rows, numbers, ids): what runs that draw tokens read, kDrawNumbers numbers a row, and write from now on.
Napi::Value ModelObject::bind_draws(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    bound_draws_ = Draws();
    Draws draws;
    draws.rows = int32s(info[0], 0, "rows");
    draws.room = static_cast<int64_t>(info[0].As<Napi::Int32Array>().ElementLength());
    draws.numbers = typed_array<Napi::Float64Array>(info[1], napi_float64_array, draws.room * kDrawNumbers, "numbers").Data();
    draws.ids = typed_array<Napi::Int32Array>(info[2], napi_int32_array, draws.room, "ids").Data();
    for (size_t i = 0; i < draw_arrays_.size(); i++) draw_arrays_[i] = Napi::Persistent(info[i].As<Napi::Object>());
    bound_draws_ = draws;
    return info.Env().Undefined();
  });
}

void ModelObject::read_draws(int64_t count) {
  const int64_t rows = step_.of(model().rows(model().program().logits));
  require(count >= 0 && count <= bound_draws_.room, "there is room for the tokens that are drawn");
  draws_.clear();
  for (int64_t i = 0; i < count; i++) {
    const int32_t row = bound_draws_.rows[i];
    require(row >= 0 && row < rows, "a token is drawn from a logit row of the step");
    draws_.push_back(logit_draw(row, bound_draws_.numbers + i * kDrawNumbers));
  }
}

// run(draws): the bound step, then tokens from the first `draws` of the bound rows.
Napi::Value ModelObject::run(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    model().check_step(step_);
    read_draws(integer(info[0], "draws"));
    model().run_and_draw(step_, draws_.data(), static_cast<int64_t>(draws_.size()), bound_draws_.ids);
    return info.Env().Undefined();
  });
}

// runCalls(begin, end): calls [begin, end) of the bound step.
Napi::Value ModelObject::run_calls(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    model().check_step(step_);
    const int64_t count = static_cast<int64_t>(model().program().calls.size()), begin = integer(info[0], "begin"), end = integer(info[1], "end");
    require(begin >= 0 && begin <= end && end <= count, "a range of calls is within the program");
    model().run_calls(step_, static_cast<size_t>(begin), static_cast<size_t>(end));
    return info.Env().Undefined();
  });
}

// profile(marks): one number more than the program has calls; see Model::profile.
Napi::Value ModelObject::profile(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const int64_t count = static_cast<int64_t>(model().program().calls.size()) + 1;
    Napi::Float64Array marks = typed_array<Napi::Float64Array>(info[0], napi_float64_array, count, "marks");
    marks_ = Napi::Persistent(marks.As<Napi::Object>());
    model().profile(marks.Data());
    return info.Env().Undefined();
  });
}

// logits(): ArrayBuffer over [maxLogitRows, vocab] fp32, detached by close().
Napi::Value ModelObject::logits(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    if (!logits_.IsEmpty()) return logits_.Value();
    const Program& program = model().program();
    const size_t bytes = static_cast<size_t>(model().limits().of(model().rows(program.logits)) * program.vocab * 4);
    hold_ = std::make_shared<Hold>(Hold{model().arena()});
    const auto release = [](Napi::Env, void*, std::shared_ptr<Hold>* hold) { delete hold; };
    const Napi::ArrayBuffer buffer = Napi::ArrayBuffer::New(info.Env(), model().temporary(program.logits), bytes, release, new std::shared_ptr<Hold>(hold_));
    logits_ = Napi::Persistent(buffer);
    return buffer;
  });
}

int64_t ModelObject::elements(int32_t value, const Napi::Value& rows) const {
  const Program& program = model().program();
  const bool temporary = value >= 0 && static_cast<size_t>(value) < program.values.size() && program.values[static_cast<size_t>(value)].kind == ValueKind::temporary;
  require(temporary, "a value is a temporary");
  const int64_t count = integer(rows, "rows");
  require(count >= 0 && count <= model().limits().of(model().rows(value)), "rows are within the limits");
  return count * model().width(value);
}

// readValue(value, rows, out)
Napi::Value ModelObject::read_value(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const int32_t value = value_id(info[0]);
    const int64_t count = elements(value, info[1]);
    std::copy_n(model().temporary(value), count, floats(info[2], count, "out"));
    return info.Env().Undefined();
  });
}

// writeValue(value, rows, data)
Napi::Value ModelObject::write_value(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const int32_t value = value_id(info[0]);
    const int64_t count = elements(value, info[1]);
    std::copy_n(floats(info[2], count, "data"), count, model().temporary(value));
    return info.Env().Undefined();
  });
}

// readKv(layer, keys, values)
Napi::Value ModelObject::read_kv(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const KvShape& kv = model().kv_shape();
    const int64_t count = kv.num_blocks * kv.block_size * kv.kv_heads * kv.head_dim;
    model().read_kv(integer(info[0], "layer"), floats(info[1], count, "keys"), floats(info[2], count, "values"));
    return info.Env().Undefined();
  });
}

// writeKv(layer, keys, values)
Napi::Value ModelObject::write_kv(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const KvShape& kv = model().kv_shape();
    const int64_t count = kv.num_blocks * kv.block_size * kv.kv_heads * kv.head_dim;
    model().write_kv(integer(info[0], "layer"), floats(info[1], count, "keys"), floats(info[2], count, "values"));
    return info.Env().Undefined();
  });
}

Napi::Value ModelObject::memory(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const Model::Memory memory = model().memory();
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("weightBytes", static_cast<double>(memory.weights));
    result.Set("kvBytes", static_cast<double>(memory.kv));
    result.Set("scratchBytes", static_cast<double>(memory.scratch));
    return result;
  });
}

float* ModelObject::row(const Napi::Value& index) const {
  const int64_t r = integer(index, "a logit row");
  const Program& program = model().program();
  require(r >= 0 && r < model().limits().of(model().rows(program.logits)), "a logit row is within the limits");
  return model().temporary(program.logits) + r * program.vocab;
}

Napi::Value ModelObject::log_sum_exp(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const float* at = row(info[0]);
    return Napi::Number::New(info.Env(), model().kernels().log_sum_exp(at, model().program().vocab));
  });
}

Napi::Value ModelObject::argmax(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const float* at = row(info[0]);
    return Napi::Number::New(info.Env(), static_cast<double>(model().kernels().argmax(at, model().program().vocab)));
  });
}

// topK(row, k, ids, logits): fills the arrays, returns how many.
Napi::Value ModelObject::top_k(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const float* at = row(info[0]);
    const int64_t k = std::min(integer(info[1], "k"), model().program().vocab);
    require(k >= 0, "k is not negative");
    int32_t* ids = typed_array<Napi::Int32Array>(info[2], napi_int32_array, k, "ids").Data();
    float* logits = floats(info[3], k, "logits");
    const std::vector<TopEntry> top = mill::top_k(model().kernels(), at, model().program().vocab, k, model().row_scratch());
    for (size_t i = 0; i < top.size(); i++) {
      ids[i] = top[i].id;
      logits[i] = top[i].logit;
    }
    return Napi::Number::New(info.Env(), static_cast<double>(top.size()));
  });
}

Napi::Value ModelObject::rank(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const float* at = row(info[0]);
    const int64_t id = integer(info[1], "id");
    require(id >= 0 && id < model().program().vocab, "a token id is in the vocabulary");
    return Napi::Number::New(info.Env(), static_cast<double>(model().kernels().rank(at, model().program().vocab, at[id])));
  });
}

// sample(row, temperature, topK, topP, minP, u)
Napi::Value ModelObject::sample(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const float* at = row(info[0]);
    const int64_t id = sample_row(model().kernels(), at, model().program().vocab, draw_params(info), number(info[5], "u"), model().row_scratch());
    return Napi::Number::New(info.Env(), static_cast<double>(id));
  });
}

// process(row, temperature, topK, topP, minP)
Napi::Value ModelObject::process(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    process_row(model().kernels(), row(info[0]), model().program().vocab, draw_params(info), model().row_scratch());
    return info.Env().Undefined();
  });
}

Napi::Value ModelObject::close(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    if (!logits_.IsEmpty()) {
      logits_.Value().Detach();
      logits_.Reset();
      hold_->arena.reset();
    }
    model_.reset();
    return info.Env().Undefined();
  });
}

}  // namespace mill
