// What the addon exports: the Model class, and questions about the machine.
#include <napi.h>

#include "../runtime/cpuid.h"
#include "../runtime/measure.h"
#include "arguments.h"
#include "model_object.h"
#include "program_reader.h"

namespace mill {
namespace {

Napi::Value isa_levels_of(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const bool emulated = info[0].ToBoolean();
    Napi::Array names = Napi::Array::New(info.Env());
    for (const IsaLevel& level : isa_levels()) {
      if (level.available && (emulated || !level.emulated)) names.Set(names.Length(), level.table->name);
    }
    return names;
  });
}

Napi::Value cpu(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const CpuInfo cpu = cpu_info();
    Napi::Object result = Napi::Object::New(info.Env());
    Napi::Array features = Napi::Array::New(info.Env());
    for (const std::string& feature : cpu.features) features.Set(features.Length(), feature);
    result.Set("name", cpu.name);
    result.Set("features", features);
    result.Set("l1dBytes", static_cast<double>(cpu.l1d_bytes));
    result.Set("l2Bytes", static_cast<double>(cpu.l2_bytes));
    result.Set("l3Bytes", static_cast<double>(cpu.l3_bytes));
    return result;
  });
}

// measureBandwidth(team, bytes): GB/s
Napi::Value bandwidth(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const TeamConfig config = read_team(object(info[0], "a team"));
    const int64_t bytes = integer(info[1], "bytes");
    require(bytes >= (1 << 20) && bytes <= (int64_t{1} << 36), "bytes is between 2^20 and 2^36");
    ThreadTeam team(config.threads, config.placement);
    return Napi::Number::New(info.Env(), measure_bandwidth(team, static_cast<size_t>(bytes)));
  });
}

// measurePeak(team, isa, kind): 10^9 operations a second
Napi::Value peak(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const TeamConfig config = read_team(object(info[0], "a team"));
    const KernelTable* kernels = find_isa(text(info[1], "isa"));
    if (!kernels) throw Failure("isa_unsupported", "This processor cannot run the instruction set.");
    const int64_t kind = integer(info[2], "kind");
    require(kind >= 0 && kind <= 2, "a kind of arithmetic is known");
    ThreadTeam team(config.threads, config.placement);
    return Napi::Number::New(info.Env(), measure_peak(team, *kernels, static_cast<int>(kind)));
  });
}

// measureTeam(team, idleUs): {barrierUs, runUs}
Napi::Value team(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const TeamConfig config = read_team(object(info[0], "a team"));
    const int64_t idle = integer(info[1], "idleUs");
    require(idle >= 0 && idle <= 1000000, "idleUs is between 0 and 10^6");
    ThreadTeam team(config.threads, config.placement);
    const TeamTimes times = measure_team(team, std::chrono::microseconds(idle));
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("barrierUs", times.barrier_us);
    result.Set("runUs", times.run_us);
    return result;
  });
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("Model", ModelObject::define(env));
  exports.Set("isaLevels", Napi::Function::New(env, isa_levels_of));
  exports.Set("cpu", Napi::Function::New(env, cpu));
  exports.Set("measureBandwidth", Napi::Function::New(env, bandwidth));
  exports.Set("measurePeak", Napi::Function::New(env, peak));
  exports.Set("measureTeam", Napi::Function::New(env, team));
  return exports;
}

}  // namespace

NODE_API_MODULE(tokenmill, init)

}  // namespace mill
