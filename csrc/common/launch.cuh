// The one place where a kernel is launched, so that the CPU emulation (tests/cuda_emulation) can stand in for
// it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#if !defined(NEUROKERN_EMULATE_CUDA)
#include <cuda_runtime.h>

#define NK_LAUNCH(kernel, grid, block, stream, ...) \
  NK_LAUNCH_SHARED(kernel, grid, block, 0, stream, __VA_ARGS__)

#define NK_LAUNCH_SHARED(kernel, grid, block, shared_bytes, stream, ...)                         \
  do {                                                                                           \
    ::neurokern::allow_shared(kernel, static_cast<std::size_t>(shared_bytes));                   \
    kernel<<<(grid), (block), (shared_bytes), static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__); \
    ::neurokern::check_launch(cudaGetLastError());                                               \
  } while (0)

// Shared memory of a block, declared at the top of a kernel. `count` is a constant; a dynamic array has the
// bytes of its launch, one per kernel, aligned to 16 bytes.
#define NK_SHARED(type, name, count) __shared__ type name[count]
#define NK_DYNAMIC_SHARED(type, name)                              \
  extern __shared__ __align__(16) unsigned char nk_shared_bytes[]; \
  type* const name = reinterpret_cast<type*>(nk_shared_bytes)

namespace neurokern {

inline void check_launch(cudaError_t status) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(
      std::string("neurokern CUDA: ") + cudaGetErrorString(status) +
      ". Check the device with `neurokern env`; backend=\"reference\" runs without our kernels.");
}

// More than 48 KiB of static and dynamic shared memory need leave; our kernels declare at most 32 KiB.
template <typename Kernel>
void allow_shared(Kernel kernel, std::size_t bytes) {
  if (bytes > std::size_t{16} << 10)
    check_launch(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
}

}  // namespace neurokern
#endif

namespace neurokern {

// Blocks that cover n items; kernels stride over the rest when the grid limit is reached.
inline unsigned grid_size(std::int64_t n_items, int block) {
  const std::int64_t blocks = (n_items + block - 1) / block;
  return static_cast<unsigned>(blocks < 1 ? 1 : (blocks > 0x7FFFFFFF ? 0x7FFFFFFF : blocks));
}

}  // namespace neurokern
