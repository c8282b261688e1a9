#include "packed_writer.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#ifdef __linux__
#include <sched.h>
#include <sys/syscall.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "cores.h"
#include "failure.h"

namespace mill {
namespace {

// Bytes written at once, at multiples of it: the page cache then holds them in large pages, which a mapping gets too. Also
// the most that closing a model waits for, and that lies unwritten in the page cache.
constexpr uint64_t kWindow = 16 << 20;
// The first requests of a start are served before more than one window is written; then the thread rests this many times as
// long as it wrote. Priority alone does not keep it out of the way: filling the page cache costs others memory bandwidth.
constexpr std::chrono::seconds kFirstRest{3};
constexpr int kRest = 3;
// Below the limit of every system.
constexpr size_t kMostVectors = 512;
constexpr uint64_t kZeros = 64 << 10;
const uint8_t zeros[kZeros] = {};

// Only time and disk that nobody else wants. Where the system refuses, the thread is one like others.
void lower_priority() {
#ifdef __linux__
  const sched_param none{};
  sched_setscheduler(0, SCHED_IDLE, &none);
  constexpr int kThisThread = 1, kIdleClass = 3 << 13;
  syscall(SYS_ioprio_set, kThisThread, 0, kIdleClass);
#endif
}

}  // namespace

PackedWriter::PackedWriter(std::string temporary, std::string path, std::string header, std::vector<Piece> pieces, uint64_t bytes)
    : temporary_(std::move(temporary)), path_(std::move(path)), header_(std::move(header)), bytes_(bytes) {
  pieces_.push_back({0, reinterpret_cast<const uint8_t*>(header_.data()), header_.size()});
  pieces_.insert(pieces_.end(), pieces.begin(), pieces.end());
  uint64_t at = 0;
  for (const Piece& piece : pieces_) {
    require(piece.offset >= at && piece.offset <= bytes_ && piece.bytes <= bytes_ - piece.offset, "packed weights lie one after the other within their file");
    at = piece.offset + piece.bytes;
  }
  require(at == bytes_, "packed weights end with their file");
  file_ = reserve();
  thread_ = std::thread(&PackedWriter::write, this);
}

PackedWriter::~PackedWriter() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  woken_.notify_all();
  thread_.join();
  close(file_);
}

int PackedWriter::reserve() const {
  const int file = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) throw Failure(errno == ENOSPC ? "disk_full" : "internal", "Cannot write " + temporary_ + ": " + std::strerror(errno) + ".");
  int error = 0;
#ifdef __linux__
  // Not posix_fallocate, which writes the whole file where the file system cannot do it.
  if (fallocate(file, 0, 0, static_cast<off_t>(bytes_)) != 0 && errno != EOPNOTSUPP && errno != ENOSYS) error = errno;
#endif
  if (error == 0) return file;
  close(file);
  unlink(temporary_.c_str());
  throw Failure(error == ENOSPC || error == EDQUOT ? "disk_full" : "internal",
                std::to_string(bytes_ >> 20) + " MiB cannot be written beside " + path_ + ": " + std::strerror(error) + ".");
}

void PackedWriter::write() {
  lower_priority();
  // It is made by a thread that may be bound.
  unbind_thread();
  bool whole = true;
  std::chrono::nanoseconds rest{0};
  for (uint64_t begin = 0; whole && begin < bytes_; begin += kWindow) {
    whole = pause(rest);
    const auto start = std::chrono::steady_clock::now();
    whole = whole && write_window(begin, std::min(bytes_, begin + kWindow));
    rest = begin == 0 ? kFirstRest : kRest * (std::chrono::steady_clock::now() - start);
  }
  whole = whole && fsync(file_) == 0 && rename(temporary_.c_str(), path_.c_str()) == 0;
  if (!whole) unlink(temporary_.c_str());
  state_.store(whole ? State::done : State::failed);
}

bool PackedWriter::pause(std::chrono::nanoseconds time) {
  std::unique_lock lock(mutex_);
  return !woken_.wait_for(lock, time, [&] { return stop_; });
}

bool PackedWriter::write_window(uint64_t begin, uint64_t end) {
  for (uint64_t at = begin; at < end;) {
    std::vector<iovec> vectors;
    uint64_t to = at;
    for (const Piece& piece : pieces_) {
      if (piece.offset + piece.bytes <= to) continue;
      while (to < std::min(piece.offset, end) && vectors.size() < kMostVectors) {
        const uint64_t count = std::min({piece.offset - to, end - to, kZeros});
        vectors.push_back({const_cast<uint8_t*>(zeros), count});
        to += count;
      }
      if (to < piece.offset || to >= end || vectors.size() == kMostVectors) break;
      const uint64_t count = std::min(piece.offset + piece.bytes, end) - to;
      vectors.push_back({const_cast<uint8_t*>(piece.data) + (to - piece.offset), count});
      to += count;
    }
    const ssize_t written = pwritev(file_, vectors.data(), static_cast<int>(vectors.size()), static_cast<off_t>(at));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    at += static_cast<uint64_t>(written);
  }
#ifdef __linux__
  // Onto the disk before more is written: others' writes are not held up by a mountain of ours.
  sync_file_range(file_, static_cast<off_t>(begin), static_cast<off_t>(end - begin), SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
#endif
  return true;
}

}  // namespace mill
