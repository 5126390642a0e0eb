// Seek points of a gzip file, kept in a file between runs.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "decode_nifti/inflate.h"

namespace neurokern {

// Seek points in ascending order: the last block start before each of the boundaries base, base + spacing,
// ... of the inflated stream, as far as it was read. Windows lie in a file, where there may be one, and are
// read from there when they are needed. For several threads.
class GzipIndex {
 public:
  struct Entry {
    SeekPoint point;
    std::int64_t place = 0;                // of the window in the index's file
    std::uint32_t n_bytes = 0, check = 0;  // of the window, and its CRC
    bool spooled = false;                  // the window lies in the nameless file, not in the index's
    std::shared_ptr<const Window> window;  // or null: in a file
  };

  GzipIndex(std::int64_t file_bytes, std::int64_t base, std::int64_t spacing);
  ~GzipIndex();
  GzipIndex(const GzipIndex&) = delete;
  GzipIndex& operator=(const GzipIndex&) = delete;

  // Puts windows into a nameless file in this folder until the index is saved, so that a long run's (32 KiB a
  // volume) take no memory. Where that fails they stay in memory.
  void spool_in(const std::string& folder);

  std::int64_t next_boundary(std::int64_t out) const;
  void add(const SeekPoint& point, Window window);  // does nothing if there is a later one
  void complete();                                  // the stream was read to its end, and checked
  void forget();

  std::vector<Entry> entries() const;
  std::int64_t reach() const;  // `out` of the last point, or 0
  std::size_t n_points() const;
  std::size_t n_saved() const;  // points that lie in the file, too
  bool is_complete() const;
  bool is_saved() const;  // nothing is known beyond the file
  Window window_of(const Entry& entry) const;

  // `key` says which gzip file it is, in any bytes. Takes the index in a file if it is one of this gzip file
  // and knows more; says whether it did. What is damaged counts as not there.
  bool load(const std::string& path, const std::string& key);
  // Writes to an empty file; false if that fails. When it lies at its final path, adopt() lets go of the
  // windows in memory.
  bool write(int descriptor, const std::string& key);
  void adopt(const std::string& path);

 private:
  bool parse(int descriptor, const std::string& key, std::vector<Entry>& entries, bool& whole) const;

  const std::int64_t file_bytes_, base_, spacing_;
  mutable std::mutex mutex_;
  std::vector<Entry> entries_;
  std::string path_;
  int spool_ = -1, spool_owner_ = 0;  // descriptor, and the process that may write there
  std::size_t n_saved_ = 0, n_written_ = 0;
  bool complete_ = false, saved_complete_ = false, written_complete_ = false;
};

}  // namespace neurokern
