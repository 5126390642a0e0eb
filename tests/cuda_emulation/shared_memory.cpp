// The shared memory of the block that runs: filled with rubbish for each block, with room between the arrays.
#include <cstring>
#include <memory>

#include "runtime.h"

namespace cuda_emulation {
namespace {

constexpr std::size_t kAlignment = 128, kMaxArrays = 64;
constexpr int kRubbish = 0xA5;

alignas(kAlignment) unsigned char memory[kMaxShared + kMaxArrays * 2 * kAlignment];
std::vector<SharedArray> arrays;  // of this block; the first is the dynamic one
std::size_t n_bytes_asked = 0;

unsigned char* place_array(const void* declaration, std::size_t bytes, const char* name) {
  unsigned char* first = memory + kAlignment;
  if (!arrays.empty()) {
    const SharedArray& last = arrays.back();
    const auto end = static_cast<std::size_t>(last.first + last.bytes - memory);
    first = memory + (end + 2 * kAlignment - 1) / kAlignment * kAlignment;
  }
  std::memset(first, kRubbish, bytes);
  arrays.push_back({declaration, name, first, bytes});
  return first;
}

}  // namespace

void start_shared(std::size_t dynamic_bytes) {
  arrays.clear();
  n_bytes_asked = dynamic_bytes;
  place_array(nullptr, dynamic_bytes, "dynamic shared memory");
}

void* static_shared(const void* declaration, std::size_t bytes, const char* name) {
  for (const SharedArray& array : arrays)
    if (array.declaration == declaration) return array.first;
  n_bytes_asked += bytes;
  if (n_bytes_asked - arrays.front().bytes > kMaxStaticShared || n_bytes_asked > kMaxShared ||
      arrays.size() == kMaxArrays)
    fail("too much shared memory: " + std::to_string(n_bytes_asked) + " bytes with " + name);
  return place_array(declaration, bytes, name);
}

void* dynamic_shared() { return arrays.front().first; }

bool in_shared_memory(const void* address) {
  const auto* byte = static_cast<const unsigned char*>(address);
  return byte >= memory && byte < memory + sizeof memory;
}

const std::vector<SharedArray>& shared_arrays() { return arrays; }

}  // namespace cuda_emulation
