// A file mapped for reading, which notices that it was changed.
#pragma once

#include <cstdint>
#include <string>

namespace neurokern {

// What tells one state of a file from another.
struct FileState {
  std::int64_t bytes, modified_ns, inode, device;
  bool operator==(const FileState& other) const {
    return bytes == other.bytes && modified_ns == other.modified_ns && inode == other.inode &&
           device == other.device;
  }
};

class MappedFile {
 public:
  // Opens a regular file; throws std::runtime_error with the system's words. Maps it if `map`, else it is
  // read by its descriptor.
  MappedFile(const std::string& path, bool map);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const unsigned char* data() const { return data_; }  // null: not mapped, or empty; read by descriptor then
  int descriptor() const { return descriptor_; }
  std::int64_t size() const { return state_.bytes; }
  const FileState& state() const { return state_; }

  // True if the file still is what was opened. What was read from a mapping counts only if it still is after
  // reading: of a file that shrank meanwhile the end reads as zeros (mapping_guard.h).
  bool is_unchanged() const;

 private:
  void unmap();

  int descriptor_ = -1;
  const unsigned char* data_ = nullptr;
  int guard_ = -1;
  FileState state_{};
};

}  // namespace neurokern
