#include "decode_nifti/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "decode_nifti/mapping_guard.h"

namespace neurokern {
namespace {

FileState state_of(const struct stat& status) {
  return {static_cast<std::int64_t>(status.st_size),
          static_cast<std::int64_t>(status.st_mtim.tv_sec) * 1000000000 + status.st_mtim.tv_nsec,
          static_cast<std::int64_t>(status.st_ino), static_cast<std::int64_t>(status.st_dev)};
}

}  // namespace

MappedFile::MappedFile(const std::string& path, bool map) {
  // Without O_NONBLOCK opening a FIFO would wait for a writer.
  descriptor_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat status{};
  if (descriptor_ < 0 || fstat(descriptor_, &status) != 0) {
    const std::string reason = std::strerror(errno);
    if (descriptor_ >= 0) close(descriptor_);
    throw std::runtime_error(reason);
  }
  if (!S_ISREG(status.st_mode)) {
    close(descriptor_);
    throw std::runtime_error("not a regular file");
  }
  state_ = state_of(status);
  if (!map || state_.bytes == 0) return;
  const auto bytes = static_cast<std::size_t>(state_.bytes);
  void* address = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, descriptor_, 0);
  if (address == MAP_FAILED) return;
  data_ = static_cast<const unsigned char*>(address);
  guard_ = guard_mapping(data_, bytes);
  if (guard_ < 0) unmap();
}

MappedFile::~MappedFile() {
  if (guard_ >= 0) release_mapping(guard_);
  if (data_ != nullptr) unmap();
  close(descriptor_);
}

void MappedFile::unmap() {
  munmap(const_cast<unsigned char*>(data_), static_cast<std::size_t>(state_.bytes));
  data_ = nullptr;
}

bool MappedFile::is_unchanged() const {
  struct stat status{};
  if (guard_ >= 0 && is_torn(guard_)) return false;
  return fstat(descriptor_, &status) == 0 && state_of(status) == state_;
}

}  // namespace neurokern
