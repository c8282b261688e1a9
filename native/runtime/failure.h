// What a caller can cause. Codes are those of src/base/errors.ts; `assertion` becomes an AssertionError.
#pragma once
#include <stdexcept>
#include <string>

namespace mill {

class Failure : public std::runtime_error {
 public:
  Failure(std::string failure_code, const std::string& message) : std::runtime_error(message), code(std::move(failure_code)) {}
  const std::string code;
};

inline void require(bool condition, const char* message) {
  if (!condition) throw Failure("assertion", message);
}

}  // namespace mill
