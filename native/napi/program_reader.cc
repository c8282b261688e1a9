#include "program_reader.h"

#include "arguments.h"

namespace mill {
namespace {

int place_number(const Napi::Value& value) {
  const int64_t number = integer(value, "a number of a place");
  require(number >= 0 && number <= 65535, "a number of a place is within its range");
  return static_cast<int>(number);
}

// Numbers taken one after the other from an array; running out is an error.
class Reader {
 public:
  explicit Reader(const Napi::Value& value) : array_(typed_array<Napi::Float64Array>(value, napi_float64_array, 0, "a program array")) {}
  bool empty() const { return at_ == array_.ElementLength(); }
  double number() {
    require(!empty(), "a program array is complete");
    return array_.Data()[at_++];
  }
  int64_t integer() {
    const double x = number();
    require(x == std::floor(x) && std::fabs(x) <= 9007199254740991.0, "a program holds whole numbers");
    return static_cast<int64_t>(x);
  }
  int32_t index() {
    const int64_t x = integer();
    require(x >= -1 && x < (int64_t{1} << 30), "a program's index is in range");
    return static_cast<int32_t>(x);
  }

 private:
  Napi::Float64Array array_;
  size_t at_ = 0;
};

// kind, step input, rows, width, offset
Value read_value(Reader& reader) {
  const int64_t kind = reader.integer(), input = reader.integer(), rows = reader.integer();
  require(kind >= 0 && kind <= 2, "a value's kind is known");
  require(input >= 0 && input <= 3, "a step input is known");
  require(rows >= 0 && rows <= 2, "a value's rows are T, S or R");
  const int64_t width = reader.integer(), offset = reader.integer();
  return {static_cast<ValueKind>(kind), static_cast<StepInput>(input), static_cast<Rows>(rows), width, offset};
}

// op, then counted inputs, outputs and attributes
OpCall read_call(Reader& reader) {
  OpCall call;
  call.op = static_cast<Op>(reader.index());
  for (std::vector<int32_t>* list : {&call.inputs, &call.outputs}) {
    const int32_t count = reader.index();
    for (int32_t i = 0; i < count; i++) list->push_back(reader.index());
  }
  const int32_t count = reader.index();
  for (int32_t i = 0; i < count; i++) call.attrs.push_back(reader.number());
  return call;
}

KvType kv_type(const std::string& name) {
  if (name == "float32") return KvType::f32;
  if (name == "bfloat16") return KvType::bf16;
  if (name == "fp8_e4m3") return KvType::e4m3;
  if (name == "fp8_e5m2") return KvType::e5m2;
  require(name == "int8_per_token_head", "a KV type is known");
  return KvType::i8;
}

}  // namespace

Program read_program(const Napi::Object& config) {
  Program program;
  for (Reader reader(config.Get("values")); !reader.empty();) program.values.push_back(read_value(reader));
  for (Reader reader(config.Get("calls")); !reader.empty();) program.calls.push_back(read_call(reader));
  program.logits = static_cast<int32_t>(integer(config.Get("logits"), "logits"));
  program.vocab = integer(config.Get("vocab"), "vocab");
  program.arena_bytes = integer(config.Get("arenaBytes"), "arenaBytes");
  return program;
}

KvShape read_kv_shape(const Napi::Object& kv) {
  return {integer(kv.Get("layers"), "layers"),
          integer(kv.Get("kvHeads"), "kvHeads"),
          integer(kv.Get("headDim"), "headDim"),
          kv_type(text(kv.Get("dtype"), "dtype")),
          integer(kv.Get("blockSize"), "blockSize"),
          integer(kv.Get("numBlocks"), "numBlocks")};
}

Limits read_limits(const Napi::Object& limits) {
  return {integer(limits.Get("tokens"), "tokens"), integer(limits.Get("sequences"), "sequences"), integer(limits.Get("logitRows"), "logitRows")};
}

TeamConfig read_team(const Napi::Object& config) {
  const int64_t threads = integer(config.Get("threads"), "threads");
  require(threads >= 1 && threads <= 1024, "threads is between 1 and 1024");
  require(config.Get("places").IsArray(), "places are an array");
  const Napi::Array places = config.Get("places").As<Napi::Array>();
  require(places.Length() == 0 || places.Length() == threads, "every thread has a place, or none");
  TeamConfig team{static_cast<int>(threads), {}};
  team.placement.bind_caller = config.Get("ownsThread").ToBoolean();
  for (uint32_t member = 0; member < places.Length(); member++) {
    const Napi::Object place = object(places.Get(member), "a place");
    require(place.Get("cpus").IsArray(), "the CPUs of a place are an array");
    const Napi::Array cpus = place.Get("cpus").As<Napi::Array>();
    std::vector<int>& own = team.placement.cpus.emplace_back();
    for (uint32_t i = 0; i < cpus.Length(); i++) own.push_back(place_number(cpus.Get(i)));
    team.placement.nodes.push_back(place_number(place.Get("node")));
  }
  return team;
}

}  // namespace mill
