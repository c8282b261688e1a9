#include "region.h"

#include <sys/mman.h>

#include <string>
#include <utility>

#include "failure.h"

namespace mill {
namespace {

// Vector loads at the end of a buffer may reach this far beyond it.
constexpr size_t kSlack = 256;
constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

Region::Region(size_t bytes, const char* what) {
  const size_t wanted = bytes + kSlack;
  void* memory = wanted < bytes ? MAP_FAILED : mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    throw Failure("out_of_memory", "Cannot allocate " + std::to_string(bytes >> 20) + " MiB for " + what + ".");
  }
#ifdef MADV_HUGEPAGE
  if (wanted >= 2 * kHugePage) madvise(memory, wanted, MADV_HUGEPAGE);
#endif
  data_ = static_cast<uint8_t*>(memory);
  bytes_ = bytes;
}

Region::~Region() {
  if (data_) munmap(data_, bytes_ + kSlack);
}

Region::Region(Region&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

Region& Region::operator=(Region&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace mill
