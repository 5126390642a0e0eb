// Values in a GPU's memory, as a file has them, to scaled values of the output's type.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/launch.cuh"
#include "decode_nifti/decode_nifti_body.h"

namespace neurokern {
namespace {

constexpr int kThreads = 256;
constexpr int kVolumesOfThread = 4;  // that share the load of a position
constexpr int kPack = 4;             // values that a thread loads and stores at once
constexpr unsigned kMaxBlocks = 65535;

template <typename T>
__device__ T in_our_order(T value, bool swapped) {
  if (!swapped || sizeof(T) == 1) return value;
  unsigned char bytes[sizeof(T)], turned[sizeof(T)];
  memcpy(bytes, &value, sizeof(T));
  for (unsigned k = 0; k < sizeof(T); ++k) turned[k] = bytes[sizeof(T) - 1 - k];
  memcpy(&value, turned, sizeof(T));
  return value;
}

template <typename T>
__device__ float decoded_value(const DecodeResident& p, T raw) {
  raw = in_our_order(raw, p.swapped);
  if (p.slope == 1 && p.inter == 0) return static_cast<float>(raw);
  if (scales_in_float(p.type, p.slope, p.inter))
    return fmaf(static_cast<float>(raw), static_cast<float>(p.slope), static_cast<float>(p.inter));
  return scaled_in_double(static_cast<double>(raw), p.slope, p.inter);
}

__device__ std::uint16_t short_of(DecodedType decoded, float value) {
  return decoded == DecodedType::f16 ? half_of(value) : bfloat16_of(value);
}

// Nothing is checked on the host: a position outside of the row stays in bounds.
__device__ std::int64_t position_of(const std::int64_t* positions, std::int64_t i, std::int64_t n_values) {
  const std::int64_t at = positions != nullptr ? positions[i] : i;
  return at < 0 || at >= n_values ? 0 : at;
}

// A block takes voxels of a few volumes, so that its stores are next to each other.
template <typename T>
__global__ void __launch_bounds__(kThreads) gather_values(DecodeResident p) {
  for (std::int64_t first = blockIdx.y * std::int64_t{kVolumesOfThread}; first < p.n_volumes;
       first += gridDim.y * std::int64_t{kVolumesOfThread}) {
    for (std::int64_t i = blockIdx.x * std::int64_t{kThreads} + threadIdx.x; i < p.n_voxels;
         i += gridDim.x * std::int64_t{kThreads}) {
      const T* raw = static_cast<const T*>(p.raw) + position_of(p.positions, i, p.volume_values);
      T values[kVolumesOfThread];
      NK_UNROLL
      for (int k = 0; k < kVolumesOfThread; ++k)
        values[k] = first + k < p.n_volumes ? raw[(first + k) * p.volume_values] : T{0};
      NK_UNROLL
      for (int k = 0; k < kVolumesOfThread; ++k) {
        if (first + k >= p.n_volumes) break;
        const std::int64_t to = (first + k) * p.out_stride + i;
        const float value = decoded_value(p, values[k]);
        if (p.decoded == DecodedType::f32) {
          static_cast<float*>(p.out)[to] = value;
        } else {
          static_cast<std::uint16_t*>(p.out)[to] = short_of(p.decoded, value);
        }
      }
    }
  }
}

template <typename T>
struct alignas(sizeof(T) * kPack < 16 ? sizeof(T) * kPack : 16) Pack {
  T values[kPack];
};

template <typename T>
bool is_aligned(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address) % alignof(Pack<T>) == 0;
}

template <typename T>
__device__ Pack<T> load_pack(const void* from, std::int64_t pack, bool aligned) {
  if (aligned) return static_cast<const Pack<T>*>(from)[pack];
  Pack<T> loaded;
  NK_UNROLL
  for (int k = 0; k < kPack; ++k) loaded.values[k] = static_cast<const T*>(from)[pack * kPack + k];
  return loaded;
}

template <typename T>
__device__ void store_pack(void* to, std::int64_t pack, const Pack<T>& values, bool aligned) {
  if (aligned) {
    static_cast<Pack<T>*>(to)[pack] = values;
    return;
  }
  NK_UNROLL
  for (int k = 0; k < kPack; ++k) static_cast<T*>(to)[pack * kPack + k] = values.values[k];
}

// All values, where rows lie back to back on both sides: four at a time, wherever a window of them begins.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    scale_values(DecodeResident p, std::int64_t n_values, bool raw_aligned, bool out_aligned) {
  const std::int64_t n_packs = n_values / kPack, n_threads = gridDim.x * std::int64_t{kThreads};
  const std::int64_t thread = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  for (std::int64_t i = thread; i < n_packs; i += n_threads) {
    const Pack<T> raw = load_pack<T>(p.raw, i, raw_aligned);
    if (p.decoded == DecodedType::f32) {
      Pack<float> values;
      NK_UNROLL
      for (int k = 0; k < kPack; ++k) values.values[k] = decoded_value(p, raw.values[k]);
      store_pack(p.out, i, values, out_aligned);
    } else {
      Pack<std::uint16_t> values;
      NK_UNROLL
      for (int k = 0; k < kPack; ++k) values.values[k] = short_of(p.decoded, decoded_value(p, raw.values[k]));
      store_pack(p.out, i, values, out_aligned);
    }
  }
  const std::int64_t last = n_packs * kPack + thread;
  if (last >= n_values) return;
  const float value = decoded_value(p, static_cast<const T*>(p.raw)[last]);
  if (p.decoded == DecodedType::f32) {
    static_cast<float*>(p.out)[last] = value;
  } else {
    static_cast<std::uint16_t*>(p.out)[last] = short_of(p.decoded, value);
  }
}

template <typename T>
void launch_values(const DecodeResident& p, void* stream) {
  if (p.positions == nullptr && p.volume_values == p.n_voxels && p.out_stride == p.n_voxels) {
    const std::int64_t n_values = p.n_volumes * p.n_voxels;
    const bool out_aligned =
        p.decoded == DecodedType::f32 ? is_aligned<float>(p.out) : is_aligned<std::uint16_t>(p.out);
    NK_LAUNCH(scale_values<T>, grid_size(n_values / kPack, kThreads), kThreads, stream, p, n_values,
              is_aligned<T>(p.raw), out_aligned);
    return;
  }
  const unsigned across = grid_size(p.n_voxels, kThreads);
  const unsigned down = grid_size(p.n_volumes, kVolumesOfThread);
  const dim3 grid(across < kMaxBlocks ? across : kMaxBlocks, down < kMaxBlocks ? down : kMaxBlocks);
  NK_LAUNCH(gather_values<T>, grid, kThreads, stream, p);
}

}  // namespace
}  // namespace neurokern
