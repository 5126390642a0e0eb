// What the parts of the emulation's runtime share; kernels do not see it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "cuda_emulation.h"
#include "fibers.h"

namespace cuda_emulation {

constexpr int kWarp = 32;
constexpr unsigned kMaxThreads = 1024;
// Limits of an H100: what a kernel may declare, and what a launch may ask for with it.
constexpr std::size_t kMaxStaticShared = 48 << 10, kMaxShared = 227 << 10;

enum class State { unstarted, runs, waits_for_block, waits_for_warp, returned };

struct Thread {
  State state = State::unstarted;
  Fiber* fiber = nullptr;
  dim3 index;
  Place place{};  // where it waits
  Meeting meeting{};
  unsigned mask = 0;
  std::uint64_t bits = 0;  // what it brings, and then what it gets
  int source = 0;
};

// The block that runs, from its first thread to its last.
struct Block {
  std::vector<Thread> threads;
  std::vector<unsigned> order;  // in which they start
  std::size_t n_started = 0, n_returned = 0, n_at_barrier = 0;
  std::vector<unsigned> ready;  // released, not yet resumed
  std::size_t n_true = 0;       // at the barrier
  int barrier_result = 0;
};

struct SharedArray {
  const void* declaration;
  const char* name;
  unsigned char* first;
  std::size_t bytes;
};

extern Block block;
extern unsigned current;  // the thread that runs, by its number in the block
extern const char* kernel_name;
extern bool in_kernel;

// Ends the launch with an error, from within a thread.
[[noreturn]] void fail(const std::string& message);
std::string thread_name(unsigned thread);  // "block 3, thread 17"

void start_shared(std::size_t dynamic_bytes);  // for a new block
const std::vector<SharedArray>& shared_arrays();

bool on_a_stack(const void* address);
bool in_shared_memory(const void* address);

// An even number in [0, n).
unsigned draw(unsigned n);

}  // namespace cuda_emulation
