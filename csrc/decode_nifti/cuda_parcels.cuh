// Means over parcels of values in a GPU's memory, with the bits of cpu_parcels.h: a warp takes a parcel of a
// few volumes.
#pragma once

#include <cstdint>

#include "decode_nifti/cuda_values.cuh"

namespace neurokern {
namespace {

constexpr int kWarp = 32, kWarps = kThreads / kWarp;
constexpr unsigned kAllLanes = 0xFFFFFFFF;

// One parcel of the volumes first ... first + kVolumesOfThread - 1; beyond the last one the last again.
template <typename T>
struct ParcelOfVolumes {
  const ReduceResident& p;
  std::int64_t parcel, first;
  int lane;

  __device__ T value(std::int64_t at, int k) const {
    const std::int64_t volume = first + k < p.n_volumes ? first + k : p.n_volumes - 1;
    return in_our_order(static_cast<const T*>(p.raw)[volume * p.volume_values + at], p.swapped);
  }
  __device__ std::int64_t first_voxel(std::int64_t run) const {
    const std::int64_t voxel = run < 0 || run > p.n_runs ? 0 : p.run_starts[run];
    return voxel < 0 ? 0 : (voxel < p.n_voxels ? voxel : p.n_voxels);
  }

  // Sums of narrow integers are exact in any order, as integers and as doubles.
  __device__ void add_exactly(double* sums) const {
    std::int64_t whole[kVolumesOfThread] = {};
    const std::int64_t end = first_voxel(p.parcel_runs[parcel + 1]);
    for (std::int64_t i = first_voxel(p.parcel_runs[parcel]) + lane; i < end; i += kWarp) {
      const std::int64_t at = position_of(p.positions, i, p.volume_values);
      NK_UNROLL
      for (int k = 0; k < kVolumesOfThread; ++k) whole[k] += static_cast<std::int64_t>(value(at, k));
    }
    NK_UNROLL
    for (int k = 0; k < kVolumesOfThread; ++k) {
      for (int distance = kWarp / 2; distance > 0; distance /= 2)
        whole[k] += __shfl_xor_sync(kAllLanes, whole[k], distance);
      sums[k] = static_cast<double>(whole[k]);
    }
  }

  // Each lane sums a run from its first voxel on; the runs' sums are then added in the order of the file.
  __device__ void add_in_order(double* sums) const {
    const std::int64_t begin = p.parcel_runs[parcel], stop_run = p.parcel_runs[parcel + 1];
    const std::int64_t end = stop_run < p.n_runs ? stop_run : p.n_runs;
    for (std::int64_t run = begin < 0 ? 0 : begin; run < end; run += kWarp) {
      double of_run[kVolumesOfThread] = {};
      const std::int64_t own = run + lane < end ? run + lane : end;
      const std::int64_t stop = first_voxel(own < end ? own + 1 : own);
      for (std::int64_t i = first_voxel(own); i < stop; ++i) {
        const std::int64_t at = position_of(p.positions, i, p.volume_values);
        NK_UNROLL
        for (int k = 0; k < kVolumesOfThread; ++k) of_run[k] += static_cast<double>(value(at, k));
      }
      const int n_runs = end - run < kWarp ? static_cast<int>(end - run) : kWarp;
      for (int source = 0; source < n_runs; ++source) {
        NK_UNROLL
        for (int k = 0; k < kVolumesOfThread; ++k) sums[k] += __shfl_sync(kAllLanes, of_run[k], source);
      }
    }
  }
};

template <typename T>
__global__ void __launch_bounds__(kThreads) reduce_parcels(ReduceResident p) {
  const std::int64_t n_groups = (p.n_volumes + kVolumesOfThread - 1) / kVolumesOfThread;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  for (std::int64_t task = blockIdx.x * std::int64_t{kWarps} + threadIdx.x / kWarp;
       task < n_groups * p.n_parcels; task += gridDim.x * std::int64_t{kWarps}) {
    const std::int64_t parcel = task % p.n_parcels, first = task / p.n_parcels * kVolumesOfThread;
    const ParcelOfVolumes<T> own{p, parcel, first, lane};
    double sums[kVolumesOfThread] = {};
    if (sizeof(T) <= 2) {
      own.add_exactly(sums);
    } else {
      own.add_in_order(sums);
    }
    NK_UNROLL
    for (int k = 0; k < kVolumesOfThread; ++k)
      if (lane == k && first + k < p.n_volumes)
        p.out[(first + k) * p.n_parcels + parcel] =
            scaled_in_double(sums[k] / p.sizes[parcel], p.slope, p.inter);
  }
}

template <typename T>
void launch_parcels(const ReduceResident& p, void* stream) {
  const std::int64_t n_groups = (p.n_volumes + kVolumesOfThread - 1) / kVolumesOfThread;
  NK_LAUNCH(reduce_parcels<T>, grid_size(n_groups * p.n_parcels, kWarps), kThreads, stream, p);
}

}  // namespace
}  // namespace neurokern
