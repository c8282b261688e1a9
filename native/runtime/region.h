// Zeroed memory straight from the system: pages cost nothing until they are touched, and all of it goes back at once.
#pragma once
#include <cstddef>
#include <cstdint>

namespace mill {

class Region {
 public:
  Region() = default;
  // Throws Failure(out_of_memory) naming `what`.
  Region(size_t bytes, const char* what);
  ~Region();
  Region(Region&& other) noexcept;
  Region& operator=(Region&& other) noexcept;
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  template <class T>
  T* as(size_t offset = 0) const {
    return reinterpret_cast<T*>(data_ + offset);
  }

 private:
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace mill
