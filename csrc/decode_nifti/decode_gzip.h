// Decoding from a gzip stream: a few volumes are inflated, decoded while they lie in cache, and forgotten.
#pragma once

#include <cstdint>

#include "decode_nifti/decode_nifti.h"
#include "decode_nifti/inflate.h"

namespace neurokern {

// Volumes [first, first + p.n_volumes) of the stream, in which the values of volume 0 start at byte
// `p.offset`. `p.mapped` and `p.descriptor` are not used.
struct GzipVolumes {
  DecodeVolumes p;
  int descriptor;
  std::int64_t file_bytes, first, all_volumes;
  const ParcelRuns* parcels;  // or null: voxels
};

// One pass from the file's start. With `index` it goes on to the stream's end, fills the index and has
// checked the whole; a pass over all volumes checks it, too. Throws StreamError, std::bad_alloc.
void decode_gzip(const GzipVolumes& volumes, GzipIndex* index, int n_threads);

// From seek points, several parts of the run at once.
void decode_gzip_indexed(const GzipVolumes& volumes, const GzipIndex& index, int n_threads);

}  // namespace neurokern
