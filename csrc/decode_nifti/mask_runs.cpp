#include "decode_nifti/mask_runs.h"

#include <vector>

namespace neurokern {
namespace {

// The mask in file order, by tiles: reading one order and writing the other, whole, misses the cache at each
// step.
std::vector<unsigned char> in_file_order(const unsigned char* mask, const std::int64_t (&shape)[3]) {
  const std::int64_t n_x = shape[0], n_y = shape[1], n_z = shape[2];
  constexpr std::int64_t kTile = 32;
  std::vector<unsigned char> turned(static_cast<std::size_t>(n_x * n_y * n_z));
  for (std::int64_t y = 0; y < n_y; ++y)
    for (std::int64_t x0 = 0; x0 < n_x; x0 += kTile)
      for (std::int64_t z0 = 0; z0 < n_z; z0 += kTile)
        for (std::int64_t x = x0; x < n_x && x < x0 + kTile; ++x)
          for (std::int64_t z = z0; z < n_z && z < z0 + kTile; ++z)
            turned[static_cast<std::size_t>((z * n_y + y) * n_x + x)] = mask[(x * n_y + y) * n_z + z] != 0;
  return turned;
}

}  // namespace

MaskSize measure_mask(const unsigned char* mask, const std::int64_t (&shape)[3]) {
  const std::vector<unsigned char> turned = in_file_order(mask, shape);
  MaskSize size{0, 0};
  unsigned char before = 0;
  for (const unsigned char inside : turned) {
    size.n_voxels += inside;
    size.n_runs += inside & ~before;
    before = inside;
  }
  return size;
}

void index_mask(const unsigned char* mask, const std::int64_t (&shape)[3], std::int64_t* run_starts,
                std::int64_t* run_lengths, std::int32_t* order) {
  const std::vector<unsigned char> turned = in_file_order(mask, shape);
  const auto n = static_cast<std::int64_t>(turned.size());
  std::vector<std::int32_t> number(turned.size());
  std::int64_t run = 0;
  std::int32_t count = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    number[static_cast<std::size_t>(i)] = count;
    if (turned[static_cast<std::size_t>(i)] == 0) continue;
    ++count;
    if (i > 0 && turned[static_cast<std::size_t>(i - 1)] != 0) {
      ++run_lengths[run - 1];
    } else {
      run_starts[run] = i;
      run_lengths[run++] = 1;
    }
  }
  const std::int64_t n_x = shape[0], n_y = shape[1], n_z = shape[2];
  for (std::int64_t x = 0; x < n_x; ++x)
    for (std::int64_t y = 0; y < n_y; ++y)
      for (std::int64_t z = 0; z < n_z; ++z)
        if (mask[(x * n_y + y) * n_z + z] != 0)
          *order++ = number[static_cast<std::size_t>((z * n_y + y) * n_x + x)];
}

}  // namespace neurokern
