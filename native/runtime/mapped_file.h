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
  // Takes the range out of this process's memory; it stays in the system's page cache.
  void drop(uint64_t offset, uint64_t length) const;
  // The file will be read over and over: large pages where the file system has them.
  void keep() const;

 private:
  std::string path_;
  int file_ = -1;
  const uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

// Maps the pages of a readable range at once, reading what is not in the page cache; nothing where the system cannot.
void prefault(const uint8_t* data, size_t bytes);

}  // namespace mill
