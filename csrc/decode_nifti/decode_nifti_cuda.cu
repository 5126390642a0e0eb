// Decoding on the GPU: half the bytes cross the bus if values come as the file has them and are scaled here.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/launch.cuh"
#include "decode_nifti/decode_nifti_body.h"

namespace neurokern {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kMaxBlocks = 65535;

template <typename T>
__device__ T load_value(const void* raw, std::int64_t i, bool swapped) {
  T value = static_cast<const T*>(raw)[i];
  if (!swapped || sizeof(T) == 1) return value;
  unsigned char bytes[sizeof(T)], turned[sizeof(T)];
  memcpy(bytes, &value, sizeof(T));
  for (unsigned k = 0; k < sizeof(T); ++k) turned[k] = bytes[sizeof(T) - 1 - k];
  memcpy(&value, turned, sizeof(T));
  return value;
}

template <typename T>
__device__ float decoded_value(const DecodeResident& p, std::int64_t i) {
  const T raw = load_value<T>(p.raw, i, p.swapped);
  if (p.slope == 1 && p.inter == 0) return static_cast<float>(raw);
  if (scales_in_float(p.type, p.slope, p.inter))
    return fmaf(static_cast<float>(raw), static_cast<float>(p.slope), static_cast<float>(p.inter));
  return scaled_in_double(static_cast<double>(raw), p.slope, p.inter);
}

// A block takes voxels of one volume, so that its stores are next to each other.
template <typename T>
__global__ void decode_values(DecodeResident p) {
  for (std::int64_t volume = blockIdx.y; volume < p.n_volumes; volume += gridDim.y) {
    for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < p.n_voxels;
         i += gridDim.x * std::int64_t{blockDim.x}) {
      std::int64_t at = p.positions != nullptr ? p.positions[i] : i;
      if (at < 0 || at >= p.volume_values) at = 0;  // nothing is checked on the host: stay in bounds
      const float value = decoded_value<T>(p, volume * p.volume_values + at);
      const std::int64_t to = volume * p.out_stride + i;
      if (p.decoded == DecodedType::f32) {
        static_cast<float*>(p.out)[to] = value;
      } else {
        static_cast<std::uint16_t*>(p.out)[to] =
            p.decoded == DecodedType::f16 ? half_of(value) : bfloat16_of(value);
      }
    }
  }
}

template <typename T>
void launch(const DecodeResident& p, void* stream) {
  const unsigned across = grid_size(p.n_voxels, kThreads);
  const dim3 grid(across < kMaxBlocks ? across : kMaxBlocks,
                  static_cast<unsigned>(p.n_volumes < kMaxBlocks ? p.n_volumes : kMaxBlocks));
  NK_LAUNCH(decode_values<T>, grid, kThreads, stream, p);
}

}  // namespace

void decode_resident_cuda(const DecodeResident& p, void* stream) {
  if (p.n_volumes == 0 || p.n_voxels == 0) return;
  switch (p.type) {
    case VoxelType::u8:
      return launch<std::uint8_t>(p, stream);
    case VoxelType::i8:
      return launch<std::int8_t>(p, stream);
    case VoxelType::u16:
      return launch<std::uint16_t>(p, stream);
    case VoxelType::i16:
      return launch<std::int16_t>(p, stream);
    case VoxelType::u32:
      return launch<std::uint32_t>(p, stream);
    case VoxelType::i32:
      return launch<std::int32_t>(p, stream);
    case VoxelType::u64:
      return launch<std::uint64_t>(p, stream);
    case VoxelType::i64:
      return launch<std::int64_t>(p, stream);
    case VoxelType::f32:
      return launch<float>(p, stream);
    case VoxelType::f64:
      return launch<double>(p, stream);
  }
}

}  // namespace neurokern
