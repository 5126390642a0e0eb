// Decoding from a gzip stream: the mask's voxels are gathered from the bytes as they are inflated, and a few
// volumes of these are decoded together.
#pragma once

#include <cstdint>

#include "decode_nifti/decode_nifti.h"
#include "decode_nifti/gzip_stream.h"

namespace neurokern {

// Volumes [first, first + p.n_volumes) of `all_volumes` in the stream, in which the values of volume 0 start
// at byte `p.offset`. `p.mapped` and `p.descriptor` are not used.
struct GzipVolumes {
  DecodeVolumes p;
  std::int64_t first, all_volumes;
  const ParcelRuns* parcels;  // or null: voxels
};

// What the stream's pass has passed is read from seek points, several parts at once; the pass is taken on for
// the rest, and to the stream's end behind the last volume, so that the whole is checked. If seek points that
// come from a file lead astray they are forgotten, and the pass starts again. Throws StreamError,
// std::bad_alloc.
void decode_gzip(GzipStream& stream, const GzipVolumes& volumes, int n_threads);

// The stream's first n bytes, or fewer if it is shorter; returns how many.
std::int64_t inflate_start(int descriptor, std::int64_t file_bytes, unsigned char* to, std::int64_t n);

}  // namespace neurokern
