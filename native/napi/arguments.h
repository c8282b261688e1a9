// Reading JavaScript values with every size checked. A failure is a Failure(assertion): our TypeScript sent something wrong.
#pragma once
#include <napi.h>

#include <cmath>
#include <string>

#include "../runtime/failure.h"

namespace mill {

// Turns a Failure into a JavaScript Error with `code`; anything else keeps its message.
template <class Work>
Napi::Value guarded(Napi::Env env, Work work) {
  const auto fail = [&](const char* code, const char* message) {
    Napi::Error error = Napi::Error::New(env, message);
    error.Set("code", code);
    error.ThrowAsJavaScriptException();
    return env.Undefined();
  };
  try {
    return work();
  } catch (const Failure& failure) {
    return fail(failure.code.c_str(), failure.what());
  } catch (const std::bad_alloc&) {
    return fail("out_of_memory", "Not enough memory.");
  } catch (const Napi::Error& error) {
    error.ThrowAsJavaScriptException();
    return env.Undefined();
  } catch (const std::exception& error) {
    return fail("internal", error.what());
  }
}

inline int64_t integer(const Napi::Value& value, const char* name) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : NAN;
  if (!(std::fabs(number) <= 9007199254740991.0) || number != std::floor(number)) throw Failure("assertion", std::string(name) + " is a whole number");
  return static_cast<int64_t>(number);
}

inline double number(const Napi::Value& value, const char* name) {
  if (!value.IsNumber()) throw Failure("assertion", std::string(name) + " is a number");
  return value.As<Napi::Number>().DoubleValue();
}

inline std::string text(const Napi::Value& value, const char* name) {
  if (!value.IsString()) throw Failure("assertion", std::string(name) + " is a string");
  return value.As<Napi::String>().Utf8Value();
}

inline Napi::Object object(const Napi::Value& value, const char* name) {
  if (!value.IsObject()) throw Failure("assertion", std::string(name) + " is an object");
  return value.As<Napi::Object>();
}

template <class Array>
Array typed_array(const Napi::Value& value, napi_typedarray_type type, int64_t least, const char* name) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type) throw Failure("assertion", std::string(name) + " is a typed array of its type");
  Array array = value.As<Array>();
  if (least < 0 || static_cast<int64_t>(array.ElementLength()) < least) throw Failure("assertion", std::string(name) + " is long enough");
  return array;
}

inline const int32_t* int32s(const Napi::Value& value, int64_t least, const char* name) {
  return typed_array<Napi::Int32Array>(value, napi_int32_array, least, name).Data();
}

inline float* floats(const Napi::Value& value, int64_t least, const char* name) {
  return typed_array<Napi::Float32Array>(value, napi_float32_array, least, name).Data();
}

}  // namespace mill
