// What the threads of a block find out together: a minimum, and the sum of those before each.
#pragma once

#include <cstdint>

#include "common/launch.cuh"

namespace neurokern {
namespace {

constexpr unsigned kAllLanes = 0xFFFFFFFFu;
constexpr int kWarp = 32;

// The lowest value of the block, for all its threads. `of_warps` is shared, an element per warp; a barrier
// must come before it is used again.
template <int kThreads>
__device__ unsigned long long block_minimum(unsigned long long value, unsigned long long* of_warps) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const unsigned long long other = __shfl_down_sync(kAllLanes, value, offset);
    value = other < value ? other : value;
  }
  if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = value;
  __syncthreads();
  for (int warp = 0; warp < kThreads / kWarp; ++warp)
    value = of_warps[warp] < value || warp == 0 ? of_warps[warp] : value;
  return value;
}

struct Prefix {
  int before, total;  // the sum of the threads before this one, and of all
};

template <int kThreads>
__device__ Prefix block_prefix(int value, int* of_warps) {
  const int lane = static_cast<int>(threadIdx.x % kWarp), warp = static_cast<int>(threadIdx.x / kWarp);
  int up_to = value;  // the sum of this warp's lanes up to here
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const int below = __shfl_up_sync(kAllLanes, up_to, offset);
    if (lane >= offset) up_to += below;
  }
  if (lane == kWarp - 1) of_warps[warp] = up_to;
  __syncthreads();
  Prefix sum{up_to - value, 0};
  for (int w = 0; w < kThreads / kWarp; ++w) {
    if (w == warp) sum.before += sum.total;
    sum.total += of_warps[w];
  }
  return sum;
}

}  // namespace
}  // namespace neurokern
