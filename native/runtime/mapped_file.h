// A read-only mapping of a whole weight file.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace mill {

class MappedFile {
 public:
  // Throws Failure(model_files_missing or model_files_invalid).
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  // `length` bytes from `offset`; throws Failure(model_files_invalid) when the file, as it is now, does not hold them.
  const uint8_t* range(uint64_t offset, uint64_t length) const;
  // Tells the system that the range will not be read again soon.
  void drop(uint64_t offset, uint64_t length) const;

 private:
  std::string path_;
  int file_ = -1;
  const uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace mill
