// A kernel for each mistake that the checks must find, and, with kBug = false, its correct twin.
// test_planted_bugs.py runs both; NK_PLANT names the pair and launches it.
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "checker.h"
#include "common/launch.cuh"

namespace {

constexpr int kThreads = 128;
constexpr unsigned kWholeWarp = 0xFFFFFFFFu;

// Memory that a launch may touch.
template <typename T>
struct DeviceArray {
  explicit DeviceArray(std::size_t n, bool fresh = false) : values(n) {
    cuda_emulation::add_array(reinterpret_cast<std::uintptr_t>(values.data()), n * sizeof(T), fresh);
  }
  std::vector<T> values;
};

// ---- barriers

// Zeroing and counting are done by different threads.
template <bool kBug>
__global__ void missing_barrier(const int* ids, int n, int* out) {
  NK_SHARED(int, counts, kThreads);
  counts[threadIdx.x] = 0;
  if (!kBug) __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) counts[ids[i]] = i;
  __syncthreads();
  out[threadIdx.x] = counts[threadIdx.x];
}

// Two threads of one warp pass a value through shared memory.
template <bool kBug>
__global__ void missing_syncwarp(int* out) {
  NK_SHARED(int, values, kThreads);
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (kBug) {
    __ballot_sync(kWholeWarp, 1);  // a vote orders no memory
  } else {
    __syncwarp();
  }
  out[threadIdx.x] = values[threadIdx.x ^ 1];
}

template <bool kBug>
__global__ void divergent_barrier(int* out) {
  if (!kBug || threadIdx.x < 100) __syncthreads();
  out[threadIdx.x] = 1;
}

// A thread without work leaves before the others meet.
template <bool kBug>
__global__ void early_return(int* out, unsigned n) {
  if (kBug && threadIdx.x >= n) return;
  NK_SHARED(int, values, kThreads);
  values[threadIdx.x] = 1;
  __syncthreads();
  if (threadIdx.x < n) out[threadIdx.x] = values[n - 1 - threadIdx.x];
}

template <bool kBug>
__global__ void two_barriers(int* out) {
  if (kBug && threadIdx.x % 2 == 0) {
    out[threadIdx.x] = 1;
    __syncthreads();
  } else {
    __syncthreads();
    out[threadIdx.x] = 2;
  }
}

// ---- warps

template <bool kBug>
__global__ void lane_outside_its_mask(int* out) {
  const int sum = static_cast<int>(threadIdx.x);
  out[threadIdx.x] = sum + __shfl_down_sync(kBug ? 0x0000FFFFu : kWholeWarp, sum, 16);
}

template <bool kBug>
__global__ void shuffle_from_an_absent_lane(int* out) {
  if (threadIdx.x % 32 >= 16) return;
  out[threadIdx.x] = __shfl_sync(0x0000FFFFu, static_cast<int>(threadIdx.x), kBug ? 20 : 7);
}

template <bool kBug>
__global__ void mask_of_lanes_that_never_come(int* out) {
  if (threadIdx.x % 32 < 16) out[threadIdx.x] = __any_sync(kBug ? kWholeWarp : 0x0000FFFFu, 1);
}

// ---- races

template <bool kBug>
__global__ void sum_of_blocks(int* out) {
  if (kBug) {
    out[threadIdx.x] += 1;
  } else {
    atomicAdd(&out[threadIdx.x], 1);
  }
}

// Reading what other blocks still add to.
template <bool kBug>
__global__ void plain_read_of_an_atomic(unsigned* total, unsigned* out) {
  atomicAdd(total, 1u);
  out[blockIdx.x * kThreads + threadIdx.x] = kBug ? *total : atomicAdd(total, 0u);
}

// The next tile is written while others still read this one.
template <bool kBug>
__global__ void reused_tile(const int* x, int n_tiles, int* out) {
  NK_SHARED(int, tile, kThreads);
  int sum = 0;
  for (int t = 0; t < n_tiles; ++t) {
    tile[threadIdx.x] = x[t * kThreads + static_cast<int>(threadIdx.x)];
    __syncthreads();
    sum += tile[(threadIdx.x + 1) % kThreads];
    if (!kBug) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

// ---- bounds

template <bool kBug>
__global__ void shared_overflow(int* out) {
  NK_SHARED(int, values, kThreads);
  int* const next = values + (kBug ? 1 : 0);
  next[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = next[threadIdx.x];
}

template <bool kBug>
__global__ void shared_index(int* out) {
  NK_SHARED(int, values, kThreads);
  values[threadIdx.x + (kBug ? 1 : 0)] = 1;
  out[threadIdx.x] = 1;
}

template <bool kBug>
__global__ void dynamic_shared_overflow(int* out) {
  NK_DYNAMIC_SHARED(int, values);
  values[threadIdx.x + (kBug ? 1 : 0)] = 1;
  out[threadIdx.x] = 1;
}

template <bool kBug>
__global__ void global_overflow(const int* x, int n, int* out) {
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads)
    out[i] = x[i] + x[i + 1 < n || kBug ? i + 1 : i];
}

template <bool kBug>
__global__ void tail_block(int* out, unsigned n) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  if (kBug || i < n) out[i] = 1;
}

struct alignas(16) Wide {
  float entry[4];
};

// A row of 4 n + 1 floats does not start where 16 bytes may be loaded at once.
template <bool kBug>
__global__ void misaligned_wide_load(const float* x, float* out) {
  const float* const row = x + (kBug ? 1 : 4);
  const Wide wide = *reinterpret_cast<const Wide*>(row + 4 * threadIdx.x);
  out[threadIdx.x] = wide.entry[0] + wide.entry[3];
}

template <bool kBug>
__global__ void host_memory(const int* host, const int* device, int* out) {
  out[threadIdx.x] = kBug ? *host : *device;
}

// ---- memory that was never written

template <bool kBug>
__global__ void uninitialised_shared(int* out) {
  NK_SHARED(int, values, kThreads + 1);
  values[threadIdx.x] = 1;
  if (!kBug && threadIdx.x == 0) values[kThreads] = 0;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x + 1];
}

template <bool kBug>
__global__ void uninitialised_global(int* out) {
  if (!kBug) out[threadIdx.x] = 0;
  out[threadIdx.x] += 1;
}

// ---- sizes beyond 32 bits

template <bool kBug>
__global__ void signed_index_overflow(std::uint8_t* out, int stride) {
  const int row = static_cast<int>(threadIdx.x);
  const std::int64_t at = kBug ? row * stride : std::int64_t{row} * stride;
  out[at] = 1;
}

// Unsigned numbers wrap by the rules of the language: row 4 lands on row 0.
template <bool kBug>
__global__ void unsigned_index_overflow(std::uint8_t* out, unsigned stride) {
  const std::uint64_t at = kBug ? threadIdx.x * stride : std::uint64_t{threadIdx.x} * stride;
  out[at] = 1;
}

template <bool kBug>
__global__ void shift_too_far(int* out) {
  const unsigned lane = threadIdx.x + (kBug ? 1u : 0u);
  out[threadIdx.x] = static_cast<int>(1u << lane);
}

// ---- launches

template <bool kBug>
__global__ void too_much_static_shared(int* out) {
  NK_SHARED(std::uint8_t, values, (kBug ? 49 : 48) * 1024);
  values[threadIdx.x] = 1;
  out[threadIdx.x] = values[threadIdx.x];
}

__global__ void does_nothing(int) {}

template <bool kBug>
void run_missing_barrier() {
  DeviceArray<int> ids(kThreads), out(kThreads);
  for (int i = 0; i < kThreads; ++i) ids.values[static_cast<std::size_t>(i)] = i * 37 % kThreads;
  NK_LAUNCH(missing_barrier<kBug>, 1, kThreads, nullptr, ids.values.data(), kThreads, out.values.data());
}

template <typename Kernel, typename... Arguments>
void run_on_array(Kernel kernel, unsigned grid, std::size_t n, const Arguments&... arguments) {
  DeviceArray<int> out(n);
  NK_LAUNCH(kernel, grid, kThreads, nullptr, out.values.data(), arguments...);
}

template <bool kBug>
void run_plain_read() {
  DeviceArray<unsigned> total(1), out(2 * kThreads);
  NK_LAUNCH(plain_read_of_an_atomic<kBug>, 2, kThreads, nullptr, total.values.data(), out.values.data());
}

template <bool kBug>
void run_reused_tile() {
  DeviceArray<int> x(3 * kThreads), out(kThreads);
  NK_LAUNCH(reused_tile<kBug>, 1, kThreads, nullptr, x.values.data(), 3, out.values.data());
}

template <bool kBug>
void run_global_overflow() {
  DeviceArray<int> x(1000), out(1000);
  NK_LAUNCH(global_overflow<kBug>, 1, kThreads, nullptr, x.values.data(), 1000, out.values.data());
}

template <bool kBug>
void run_dynamic_shared_overflow() {
  DeviceArray<int> out(kThreads);
  NK_LAUNCH_SHARED(dynamic_shared_overflow<kBug>, 1, kThreads, kThreads * sizeof(int), nullptr,
                   out.values.data());
}

template <bool kBug>
void run_misaligned() {
  DeviceArray<Wide> x(kThreads + 2);
  DeviceArray<float> out(kThreads);
  NK_LAUNCH(misaligned_wide_load<kBug>, 1, kThreads, nullptr, x.values[0].entry, out.values.data());
}

template <bool kBug>
void run_host_memory() {
  const int host = 7;
  DeviceArray<int> device(1), out(kThreads);
  NK_LAUNCH(host_memory<kBug>, 1, kThreads, nullptr, &host, device.values.data(), out.values.data());
}

template <bool kBug>
void run_uninitialised_global() {
  DeviceArray<int> out(kThreads, true);
  NK_LAUNCH(uninitialised_global<kBug>, 1, kThreads, nullptr, out.values.data());
}

// Eight rows of a GiB each, of which the kernel touches a byte.
template <typename Kernel, typename Stride>
void run_far(Kernel kernel, Stride stride) {
  constexpr std::size_t kBytes = std::size_t{8} << 30;
  void* memory =
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  const std::unique_ptr<void, void (*)(void*)> owner(memory, [](void* bytes) { munmap(bytes, kBytes); });
  cuda_emulation::add_array(reinterpret_cast<std::uintptr_t>(memory), kBytes, false);
  NK_LAUNCH(kernel, 1, 8, nullptr, static_cast<std::uint8_t*>(memory), stride);
  for (std::size_t row = 0; row < 8; ++row)
    if (static_cast<std::uint8_t*>(memory)[row << 30] != 1) throw std::runtime_error("a row was not written");
}

}  // namespace

// Runs the kernel of this name, with or without its bug.
void plant(const std::string& name, bool bug) {
#define NK_PLANT(plant, correct, wrong) \
  if (name == #plant) return bug ? static_cast<void>(wrong) : static_cast<void>(correct)
#define NK_PLANT_RUN(plant, run) NK_PLANT(plant, run<false>(), run<true>())
#define NK_PLANT_ON_ARRAY(plant, ...) \
  NK_PLANT(plant, run_on_array(plant<false>, __VA_ARGS__), run_on_array(plant<true>, __VA_ARGS__))
  NK_PLANT_RUN(missing_barrier, run_missing_barrier);
  NK_PLANT_ON_ARRAY(missing_syncwarp, 1, kThreads);
  NK_PLANT_ON_ARRAY(divergent_barrier, 1, kThreads);
  NK_PLANT_ON_ARRAY(early_return, 1, kThreads, 100u);
  NK_PLANT_ON_ARRAY(two_barriers, 1, kThreads);
  NK_PLANT_ON_ARRAY(lane_outside_its_mask, 1, kThreads);
  NK_PLANT_ON_ARRAY(shuffle_from_an_absent_lane, 1, kThreads);
  NK_PLANT_ON_ARRAY(mask_of_lanes_that_never_come, 1, kThreads);
  NK_PLANT_ON_ARRAY(sum_of_blocks, 4, kThreads);
  NK_PLANT_RUN(plain_read_of_an_atomic, run_plain_read);
  NK_PLANT_RUN(reused_tile, run_reused_tile);
  NK_PLANT_ON_ARRAY(shared_overflow, 1, kThreads);
  NK_PLANT_ON_ARRAY(shared_index, 1, kThreads);
  NK_PLANT_RUN(dynamic_shared_overflow, run_dynamic_shared_overflow);
  NK_PLANT_RUN(global_overflow, run_global_overflow);
  NK_PLANT_ON_ARRAY(tail_block, 3, 2 * kThreads + 5, 2u * kThreads + 5);
  NK_PLANT_RUN(misaligned_wide_load, run_misaligned);
  NK_PLANT_RUN(host_memory, run_host_memory);
  NK_PLANT_ON_ARRAY(uninitialised_shared, 1, kThreads);
  NK_PLANT_RUN(uninitialised_global, run_uninitialised_global);
  NK_PLANT(signed_index_overflow, run_far(signed_index_overflow<false>, 1 << 30),
           run_far(signed_index_overflow<true>, 1 << 30));
  NK_PLANT(unsigned_index_overflow, run_far(unsigned_index_overflow<false>, 1u << 30),
           run_far(unsigned_index_overflow<true>, 1u << 30));
  NK_PLANT(shift_too_far, NK_LAUNCH(shift_too_far<false>, 1, 32, nullptr, DeviceArray<int>(32).values.data()),
           NK_LAUNCH(shift_too_far<true>, 1, 32, nullptr, DeviceArray<int>(32).values.data()));
  NK_PLANT_ON_ARRAY(too_much_static_shared, 1, kThreads);
  NK_PLANT(too_many_threads, NK_LAUNCH(does_nothing, 1, 1024, nullptr, 0),
           NK_LAUNCH(does_nothing, 1, 1025, nullptr, 0));
  NK_PLANT(empty_grid, NK_LAUNCH(does_nothing, 1, 32, nullptr, 0),
           NK_LAUNCH(does_nothing, 0, 32, nullptr, 0));
  NK_PLANT(too_much_dynamic_shared, NK_LAUNCH_SHARED(does_nothing, 1, 32, 227 << 10, nullptr, 0),
           NK_LAUNCH_SHARED(does_nothing, 1, 32, (227 << 10) + 1, nullptr, 0));
  throw std::runtime_error("no such plant: " + name);
}
