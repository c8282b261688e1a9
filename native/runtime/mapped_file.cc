#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "failure.h"

namespace mill {

MappedFile::MappedFile(const std::string& path) : path_(path) {
  file_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file_ < 0) throw Failure("model_files_missing", "Cannot open " + path + ": " + std::strerror(errno) + ".");
  struct stat status;
  if (fstat(file_, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size <= 0) {
    close(file_);
    throw Failure("model_files_invalid", path + " is empty or not a regular file.");
  }
  bytes_ = static_cast<size_t>(status.st_size);
  void* memory = mmap(nullptr, bytes_, PROT_READ, MAP_SHARED, file_, 0);
  if (memory == MAP_FAILED) {
    close(file_);
    throw Failure("out_of_memory", "Cannot map " + path + ": " + std::strerror(errno) + ".");
  }
  data_ = static_cast<const uint8_t*>(memory);
}

MappedFile::~MappedFile() {
  munmap(const_cast<uint8_t*>(data_), bytes_);
  close(file_);
}

const uint8_t* MappedFile::range(uint64_t offset, uint64_t length) const {
  // Asked again each time: reading a page beyond the end of a file that has shrunk since would kill the process.
  struct stat status;
  const bool known = fstat(file_, &status) == 0;
  const uint64_t size = known && static_cast<uint64_t>(status.st_size) < bytes_ ? static_cast<uint64_t>(status.st_size) : bytes_;
  if (!known || offset > size || length > size - offset) {
    throw Failure("model_files_invalid", path_ + " has " + std::to_string(size) + " bytes; a tensor needs bytes " + std::to_string(offset) + " to " +
                                             std::to_string(offset + length) + ".");
  }
  return data_ + offset;
}

void MappedFile::drop(uint64_t offset, uint64_t length) const {
  const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t begin = (offset + page - 1) / page * page;
  const uint64_t end = (offset + length) / page * page;
  if (end > begin) madvise(const_cast<uint8_t*>(data_) + begin, end - begin, MADV_DONTNEED);
}

void MappedFile::keep() const {
#ifdef MADV_HUGEPAGE
  madvise(const_cast<uint8_t*>(data_), bytes_, MADV_HUGEPAGE);
#endif
}

void prefault(const uint8_t* data, size_t bytes) {
#ifdef __linux__
  constexpr int kPopulateRead = 22;  // MADV_POPULATE_READ, Linux 5.14
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data) / page * page, end = reinterpret_cast<uintptr_t>(data) + bytes;
  madvise(reinterpret_cast<void*>(begin), end - begin, kPopulateRead);
#else
  (void)data, (void)bytes;
#endif
}

}  // namespace mill
