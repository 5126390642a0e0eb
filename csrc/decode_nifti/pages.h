// Memory straight from the system: it goes back when it is freed, where malloc keeps blocks of this size once
// one of them was freed.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>

namespace neurokern {

class Pages {
 public:
  explicit Pages(std::size_t bytes) : bytes_(bytes > 0 ? bytes : 1) {
    void* found = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<unsigned char*>(found);
  }
  ~Pages() { munmap(data_, bytes_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  unsigned char* get() const { return data_; }

 private:
  std::size_t bytes_;
  unsigned char* data_;
};

}  // namespace neurokern
