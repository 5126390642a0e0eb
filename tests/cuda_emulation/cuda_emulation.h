// Runs the source of simple CUDA kernels on the CPU, so that the tests can execute them where no GPU is. Test
// code: never part of the package.
//
// Included before a .cu file that is compiled as C++ (g++ -x c++ -include cuda_emulation.h). A launch is a
// loop over blocks and threads in an order drawn from a seed, one thread after the other: right for kernels
// whose threads meet only in atomics. A kernel that waits for another thread (__syncthreads, shuffles, shared
// memory) does not compile here, since none of those names exists. What one thread at a time cannot show: a
// race between plain accesses.
#pragma once

#define NEUROKERN_EMULATE_CUDA

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <random>
#include <stdexcept>
#include <type_traits>
#include <vector>

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict

namespace cuda_emulation {

struct Index {
  unsigned x, y, z;
};

inline thread_local Index thread_index, block_index, block_size, grid_size;

// Every launch shuffles anew; CUDA_EMULATION_SEED starts the sequence.
inline std::mt19937_64& generator() {
  static std::mt19937_64 state(std::getenv("CUDA_EMULATION_SEED")
                                   ? std::strtoull(std::getenv("CUDA_EMULATION_SEED"), nullptr, 10)
                                   : 0);
  return state;
}

inline std::vector<unsigned> shuffled(unsigned n) {
  std::vector<unsigned> order(n);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), generator());
  return order;
}

// As a GPU refuses it: no empty grids, no blocks above 1024 threads.
inline void check(unsigned grid, unsigned block) {
  if (grid == 0 || grid > 0x7FFFFFFFu) throw std::runtime_error("cuda_emulation: invalid grid");
  if (block == 0 || block > 1024) throw std::runtime_error("cuda_emulation: invalid block");
}

template <typename Kernel, typename... Arguments>
void launch(Kernel kernel, unsigned grid, unsigned block, const Arguments&... arguments) {
  check(grid, block);
  grid_size = {grid, 1, 1};
  block_size = {block, 1, 1};
  const std::vector<unsigned> threads = shuffled(block);
  for (const unsigned b : shuffled(grid)) {
    block_index = {b, 0, 0};
    for (const unsigned t : threads) {
      thread_index = {t, 0, 0};
      kernel(arguments...);  // by value, as a launch copies
    }
  }
}

}  // namespace cuda_emulation

#define threadIdx (::cuda_emulation::thread_index)
#define blockIdx (::cuda_emulation::block_index)
#define blockDim (::cuda_emulation::block_size)
#define gridDim (::cuda_emulation::grid_size)

// The stream is not used: launches follow each other.
#define NK_LAUNCH(kernel, grid, block, stream, ...) \
  (static_cast<void>(stream), ::cuda_emulation::launch(kernel, (grid), (block), __VA_ARGS__))

template <typename T>
T atomicAdd(T* address, std::common_type_t<T> value) {
  const T old = *address;
  *address = static_cast<T>(old + value);
  return old;
}
template <typename T>
T atomicMax(T* address, std::common_type_t<T> value) {
  const T old = *address;
  *address = std::max(old, value);
  return old;
}
template <typename T>
T atomicMin(T* address, std::common_type_t<T> value) {
  const T old = *address;
  *address = std::min(old, value);
  return old;
}
template <typename T>
T atomicOr(T* address, std::common_type_t<T> value) {
  const T old = *address;
  *address = static_cast<T>(old | value);
  return old;
}
