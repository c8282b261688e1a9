// Writes packed weights to a file in the background, out of the way of the steps that read them.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace mill {

class PackedWriter {
 public:
  struct Piece {
    uint64_t offset;  // in the file
    const uint8_t* data;
    uint64_t bytes;
  };
  enum class State { writing, done, failed };

  // Takes all room the file needs; throws Failure(disk_full) where there is not enough, Failure(internal) where `temporary`
  // cannot be made. Then `header` and the pieces, in the order of the file and without overlap, are written behind the
  // caller's back, and at the end `temporary` becomes `path`. What the pieces point to must outlive the writer.
  PackedWriter(std::string temporary, std::string path, std::string header, std::vector<Piece> pieces, uint64_t bytes);
  // Gives up a file that is not complete.
  ~PackedWriter();
  PackedWriter(const PackedWriter&) = delete;
  PackedWriter& operator=(const PackedWriter&) = delete;

  State state() const { return state_.load(); }

 private:
  int reserve() const;
  void write();
  bool write_window(uint64_t begin, uint64_t end);
  // False when it is given up meanwhile.
  bool pause(std::chrono::nanoseconds time);

  const std::string temporary_;
  const std::string path_;
  const std::string header_;
  std::vector<Piece> pieces_;
  const uint64_t bytes_;
  int file_ = -1;
  std::mutex mutex_;
  std::condition_variable woken_;
  bool stop_ = false;  // under the mutex
  std::atomic<State> state_{State::writing};
  std::thread thread_;
};

}  // namespace mill
