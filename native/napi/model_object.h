// The JavaScript object around a Model. All native state hangs on it: several threads may load the addon.
#pragma once
#include <napi.h>

#include <array>
#include <memory>

#include "../runtime/model.h"

namespace mill {

class ModelObject : public Napi::ObjectWrap<ModelObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit ModelObject(const Napi::CallbackInfo& info);

 private:
  Napi::Value load_linear(const Napi::CallbackInfo& info);
  Napi::Value load_dense(const Napi::CallbackInfo& info);
  Napi::Value load_mapped(const Napi::CallbackInfo& info);
  Napi::Value map_packed(const Napi::CallbackInfo& info);
  Napi::Value save_packed(const Napi::CallbackInfo& info);
  Napi::Value packed_state(const Napi::CallbackInfo& info);
  Napi::Value reserve_table(const Napi::CallbackInfo& info);
  Napi::Value write_table(const Napi::CallbackInfo& info);
  static Napi::Value packed_bytes(const Napi::CallbackInfo& info);
  Napi::Value set_linear(const Napi::CallbackInfo& info);
  Napi::Value set_dense(const Napi::CallbackInfo& info);
  Napi::Value finish_loading(const Napi::CallbackInfo& info);
  Napi::Value bind_step(const Napi::CallbackInfo& info);
  Napi::Value bind_draws(const Napi::CallbackInfo& info);
  Napi::Value run(const Napi::CallbackInfo& info);
  Napi::Value run_calls(const Napi::CallbackInfo& info);
  Napi::Value profile(const Napi::CallbackInfo& info);
  Napi::Value logits(const Napi::CallbackInfo& info);
  Napi::Value read_value(const Napi::CallbackInfo& info);
  Napi::Value write_value(const Napi::CallbackInfo& info);
  Napi::Value read_kv(const Napi::CallbackInfo& info);
  Napi::Value write_kv(const Napi::CallbackInfo& info);
  Napi::Value memory(const Napi::CallbackInfo& info);
  Napi::Value log_sum_exp(const Napi::CallbackInfo& info);
  Napi::Value argmax(const Napi::CallbackInfo& info);
  Napi::Value top_k(const Napi::CallbackInfo& info);
  Napi::Value rank(const Napi::CallbackInfo& info);
  Napi::Value sample(const Napi::CallbackInfo& info);
  Napi::Value process(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  Model& model() const;
  float* row(const Napi::Value& index) const;
  void read_draws(int64_t count);
  int64_t elements(int32_t value, const Napi::Value& rows) const;

  std::unique_ptr<Model> model_;
  // The logits' memory as JavaScript sees it. A view may outlive this object, so the buffer keeps the arena; close() takes
  // the buffer's memory away and then frees it at once.
  struct Hold {
    std::shared_ptr<Region> arena;
  };
  std::shared_ptr<Hold> hold_;
  Napi::Reference<Napi::ArrayBuffer> logits_;
  // What a run reads and writes, and the arrays that it lies in.
  Step step_;
  std::array<Napi::ObjectReference, 7> step_arrays_;
  struct Draws {
    int64_t room = 0;
    const int32_t* rows = nullptr;
    const double* numbers = nullptr;
    int32_t* ids = nullptr;
  };
  Draws bound_draws_;
  std::array<Napi::ObjectReference, 3> draw_arrays_;
  std::vector<Model::LogitDraw> draws_;  // of the last run, kept for its memory
  // Keeps the memory that a profiled model writes into.
  Napi::ObjectReference marks_;
};

}  // namespace mill
