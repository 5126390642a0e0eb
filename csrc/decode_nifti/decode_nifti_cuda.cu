// Decoding on the GPU: half the bytes cross the bus if values come as the file has them and are scaled here.
#include <cstdint>

#include "decode_nifti/cuda_clean.cuh"
#include "decode_nifti/cuda_parcels.cuh"
#include "decode_nifti/cuda_values.cuh"

namespace neurokern {
namespace {

// Calls `visit` with a value of the file's type.
template <typename Visit>
void with_voxel_type(VoxelType type, Visit visit) {
  switch (type) {
    case VoxelType::u8:
      return visit(std::uint8_t{});
    case VoxelType::i8:
      return visit(std::int8_t{});
    case VoxelType::u16:
      return visit(std::uint16_t{});
    case VoxelType::i16:
      return visit(std::int16_t{});
    case VoxelType::u32:
      return visit(std::uint32_t{});
    case VoxelType::i32:
      return visit(std::int32_t{});
    case VoxelType::u64:
      return visit(std::uint64_t{});
    case VoxelType::i64:
      return visit(std::int64_t{});
    case VoxelType::f32:
      return visit(float{});
    case VoxelType::f64:
      return visit(double{});
  }
}

}  // namespace

void decode_resident_cuda(const DecodeResident& p, void* stream) {
  if (p.n_volumes == 0 || p.n_voxels == 0) return;
  with_voxel_type(p.type, [&](auto zero) { launch_values<decltype(zero)>(p, stream); });
}

void reduce_resident_cuda(const ReduceResident& p, void* stream) {
  if (p.n_volumes == 0 || p.n_parcels == 0) return;
  with_voxel_type(p.type, [&](auto zero) { launch_parcels<decltype(zero)>(p, stream); });
}

void clean_columns_cuda(const CleanColumns& p, void* stream) {
  if (p.n_rows == 0 || p.n_columns == 0) return;
  NK_LAUNCH(clean_column, grid_size(p.n_columns, kThreads), kThreads, stream, p);
}

}  // namespace neurokern
