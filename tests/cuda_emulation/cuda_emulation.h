// What a CUDA source finds when it is compiled as C++ (g++ -x c++ -include cuda_emulation.h), so that tests
// can execute kernels where no GPU is. Test code: never part of the package;
// docs/design/kernels-without-a-gpu.md says what is checked.
//
// Kernels may use exactly what is declared here and the macros of csrc/common/launch.cuh. Functions that wait
// for other threads take the place of their call as a last argument, for the reports.
#pragma once

#define NEUROKERN_EMULATE_CUDA

#include <math.h>  // CUDA has its functions in the global namespace

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace cuda_emulation {

struct Coordinates {
  dim3 thread, block, block_size, grid_size;
};
extern Coordinates now;  // of the thread that runs

struct Place {
  const char* file;
  int line;
};

// ---- launches

struct Launch {
  const char* kernel;
  dim3 grid, block;
  std::size_t shared_bytes;
};

// Runs `thread(call)` once for every thread of the grid; throws std::runtime_error with what a check found.
void run(const Launch& launch, void (*thread)(void*), void* call);

template <typename Kernel, typename... Arguments>
void launch(const Launch& where, Kernel kernel, const Arguments&... arguments) {
  auto thread = [&]() __attribute__((no_sanitize("thread"))) { kernel(arguments...); };  // copies them
  run(where, [](void* call) { (*static_cast<decltype(thread)*>(call))(); }, &thread);
}

// ---- shared memory

void* static_shared(const void* declaration, std::size_t bytes, const char* name);
void* dynamic_shared();

template <typename T, std::size_t kCount>
using Array = T[kCount];

template <typename T, std::size_t kCount>
Array<T, kCount>& shared_array(const void* declaration, const char* name) {
  return *static_cast<Array<T, kCount>*>(static_shared(declaration, sizeof(T) * kCount, name));
}

// ---- threads that wait for each other

enum class Barrier { plain, any, all, count };
int wait_for_block(Barrier kind, bool predicate, Place place);

// The lanes of `mask` meet; a shuffle gives the bits of lane `source`, a vote the lanes whose bits are not 0.
enum class Meeting { sync, shuffle, vote };
std::uint64_t meet(Meeting kind, unsigned mask, std::uint64_t bits, int source, Place place);
int lane();

template <typename T>
T shuffle(unsigned mask, T value, int source, Place place) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) <= 8, "shuffles move numbers of 4 or 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = meet(Meeting::shuffle, mask, bits, source, place);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline int segment_start(int width) { return lane() & ~(width - 1); }

}  // namespace cuda_emulation

#define threadIdx (::cuda_emulation::now.thread)
#define blockIdx (::cuda_emulation::now.block)
#define blockDim (::cuda_emulation::now.block_size)
#define gridDim (::cuda_emulation::now.grid_size)

// The stream is not used: launches follow each other.
#define NK_LAUNCH(kernel, grid, block, stream, ...) \
  NK_LAUNCH_SHARED(kernel, grid, block, 0, stream, __VA_ARGS__)
#define NK_LAUNCH_SHARED(kernel, grid, block, shared_bytes, stream, ...)                                \
  (static_cast<void>(stream),                                                                           \
   ::cuda_emulation::launch({#kernel, (grid), (block), static_cast<std::size_t>(shared_bytes)}, kernel, \
                            __VA_ARGS__))

#define NK_SHARED(type, name, count)           \
  static const char nk_declaration_##name = 0; \
  type(&name)[count] = ::cuda_emulation::shared_array<type, (count)>(&nk_declaration_##name, #name)
#define NK_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(::cuda_emulation::dynamic_shared())

#define CUDA_EMULATION_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(CUDA_EMULATION_CALLER) {
  ::cuda_emulation::wait_for_block(::cuda_emulation::Barrier::plain, false, {file, line});
}
inline int __syncthreads_or(int predicate, CUDA_EMULATION_CALLER) {
  return ::cuda_emulation::wait_for_block(::cuda_emulation::Barrier::any, predicate != 0, {file, line});
}
inline int __syncthreads_and(int predicate, CUDA_EMULATION_CALLER) {
  return ::cuda_emulation::wait_for_block(::cuda_emulation::Barrier::all, predicate != 0, {file, line});
}
inline int __syncthreads_count(int predicate, CUDA_EMULATION_CALLER) {
  return ::cuda_emulation::wait_for_block(::cuda_emulation::Barrier::count, predicate != 0, {file, line});
}

inline void __syncwarp(unsigned mask = ~0u, CUDA_EMULATION_CALLER) {
  ::cuda_emulation::meet(::cuda_emulation::Meeting::sync, mask, 0, 0, {file, line});
}
inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_EMULATION_CALLER) {
  return static_cast<unsigned>(
      ::cuda_emulation::meet(::cuda_emulation::Meeting::vote, mask, predicate != 0, 0, {file, line}));
}
inline int __any_sync(unsigned mask, int predicate, CUDA_EMULATION_CALLER) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDA_EMULATION_CALLER) {
  return __ballot_sync(mask, predicate, file, line) == mask;
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDA_EMULATION_CALLER) {
  const int start = ::cuda_emulation::segment_start(width);
  return ::cuda_emulation::shuffle(mask, value, start | (source & (width - 1)), {file, line});
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_EMULATION_CALLER) {
  const int lane = ::cuda_emulation::lane(), source = lane - static_cast<int>(delta);
  return ::cuda_emulation::shuffle(
      mask, value, source < ::cuda_emulation::segment_start(width) ? lane : source, {file, line});
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_EMULATION_CALLER) {
  const int lane = ::cuda_emulation::lane(), source = lane + static_cast<int>(delta);
  const int end = ::cuda_emulation::segment_start(width) + width;
  return ::cuda_emulation::shuffle(mask, value, source < end ? source : lane, {file, line});
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, CUDA_EMULATION_CALLER) {
  const int lane = ::cuda_emulation::lane(), source = lane ^ lane_mask;
  const int end = ::cuda_emulation::segment_start(width) + width;
  return ::cuda_emulation::shuffle(mask, value, source < end ? source : lane, {file, line});
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((std::uint64_t{a} * b) >> 32);
}
template <typename T>
T __ldg(const T* address) {
  return *address;
}

#include "emulated_atomics.h"
