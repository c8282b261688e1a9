// A Program as src/backends/cpu/native_program.ts flattens it.
#pragma once
#include <napi.h>

#include "../runtime/program.h"
#include "../runtime/thread_team.h"

namespace mill {

Program read_program(const Napi::Object& config);
KvShape read_kv_shape(const Napi::Object& kv);
Limits read_limits(const Napi::Object& limits);

struct TeamConfig {
  int threads;
  Placement placement;
};

// {threads, places: [{cpus, node}] of each thread, or none; ownsThread}
TeamConfig read_team(const Napi::Object& config);

}  // namespace mill
