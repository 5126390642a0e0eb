#include "decode_nifti/mask_runs.h"

#include <cstring>
#include <vector>

namespace neurokern {
namespace {

using Bytes = std::vector<unsigned char>;
using Numbers = std::vector<std::int32_t>;

// A mask is read plane after plane (one x), in the order of its bytes: the file's order would miss the cache
// at each step. What is known of a row (all x) stands where the row begins in a plane, at y * n_z + z.
struct Mask {
  const unsigned char* bytes;
  std::int64_t n_x, n_y, n_z;
  std::size_t n_rows;
  Bytes row_before;  // the last voxel of the row before in the file, where a row's first run may have begun

  Mask(const unsigned char* mask, const std::int64_t (&shape)[3])
      : bytes(mask),
        n_x(shape[0]),
        n_y(shape[1]),
        n_z(shape[2]),
        n_rows(static_cast<std::size_t>(n_y * n_z)) {
    row_before.resize(n_rows);
    const unsigned char* last = plane(n_x - 1);
    unsigned char before = 0;
    for_rows([&](std::size_t row) {
      row_before[row] = before;
      before = last[row];
    });
  }

  const unsigned char* plane(std::int64_t x) const { return bytes + x * n_y * n_z; }
  const unsigned char* plane_before(std::int64_t x) const { return x > 0 ? plane(x - 1) : row_before.data(); }

  // Calls work(row) in the order of the file, y fastest.
  template <typename Work>
  void for_rows(Work work) const {
    for (std::int64_t z = 0; z < n_z; ++z)
      for (std::int64_t y = 0; y < n_y; ++y) work(static_cast<std::size_t>(y * n_z + z));
  }
  std::int64_t place_in_file(std::size_t row, std::int64_t x) const {
    const auto y = static_cast<std::int64_t>(row) / n_z, z = static_cast<std::int64_t>(row) % n_z;
    return (z * n_y + y) * n_x + x;
  }
};

struct Counts {
  Numbers voxels, runs;  // of each row
};

Counts count_rows(const Mask& mask) {
  Counts counts{Numbers(mask.n_rows), Numbers(mask.n_rows)};
  for (std::int64_t x = 0; x < mask.n_x; ++x) {
    const unsigned char *plane = mask.plane(x), *before = mask.plane_before(x);
    std::int32_t *voxels = counts.voxels.data(), *runs = counts.runs.data();
    for (std::size_t row = 0; row < mask.n_rows; ++row) {
      voxels[row] += plane[row] != 0;
      runs[row] += (plane[row] != 0) & (before[row] == 0);
    }
  }
  return counts;
}

// Calls work(row) for the voxels of a plane that are inside; eight that are not cost one step.
template <typename Work>
void for_inside(const unsigned char* plane, std::size_t n, Work work) {
  std::size_t row = 0;
  for (; row + 8 <= n; row += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, plane + row, sizeof eight);
    if (eight == 0) continue;
    for (std::size_t i = row; i < row + 8; ++i)
      if (plane[i] != 0) work(i);
  }
  for (; row < n; ++row)
    if (plane[row] != 0) work(row);
}

}  // namespace

MaskSize measure_mask(const unsigned char* mask, const std::int64_t (&shape)[3]) {
  MaskSize size{0, 0};
  if (shape[0] * shape[1] * shape[2] == 0) return size;
  const Counts counts = count_rows(Mask(mask, shape));
  for (const std::int32_t n : counts.voxels) size.n_voxels += n;
  for (const std::int32_t n : counts.runs) size.n_runs += n;
  return size;
}

void index_mask(const unsigned char* mask, const std::int64_t (&shape)[3], std::int64_t* run_starts,
                std::int64_t* run_lengths, std::int32_t* order) {
  if (shape[0] * shape[1] * shape[2] == 0) return;
  const Mask rows(mask, shape);
  Counts next = count_rows(rows);  // from here on the numbers of each row's next voxel and next run
  std::int32_t n_voxels = 0, n_runs = 0;
  rows.for_rows([&](std::size_t row) {
    n_voxels += next.voxels[row];
    next.voxels[row] = n_voxels - next.voxels[row];
    n_runs += next.runs[row];
    next.runs[row] = n_runs - next.runs[row];
  });
  for (std::int64_t x = 0; x < rows.n_x; ++x) {
    const unsigned char* before = rows.plane_before(x);
    for_inside(rows.plane(x), rows.n_rows, [&](std::size_t row) {
      const std::int32_t voxel = *order++ = next.voxels[row]++;
      if (before[row] != 0) return;
      const std::int32_t run = next.runs[row]++;
      run_starts[run] = rows.place_in_file(row, x);
      run_lengths[run] = voxel;  // its first one, until all are known
    });
  }
  for (std::int32_t run = 0; run < n_runs; ++run)
    run_lengths[run] = (run + 1 < n_runs ? run_lengths[run + 1] : n_voxels) - run_lengths[run];
}

}  // namespace neurokern
