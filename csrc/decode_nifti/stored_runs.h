// Batches of windows of stored runs: which rows they take of which run, and whether the files held still.
#pragma once

#include <cstdint>
#include <vector>

#include "decode_nifti/decode_nifti.h"
#include "decode_nifti/mapped_file.h"

namespace neurokern {

// Values of a run that windows are taken of; `files` are those that the values, or what cleans them, are
// mapped from.
struct StoredRun {
  StoredRows rows;
  std::int64_t n_rows;
  std::vector<const MappedFile*> files;
};

// Windows of n_rows rows from starts[i] on, which may be negative, in `out`: (n_windows, n_rows, n_columns).
// Only the first lengths[i] rows of a window count, all if lengths is null. Rows that do not count, or lie
// outside of the run, become 0, as do columns that the run does not have.
struct WindowBatch {
  std::vector<const StoredRun*> runs;  // of each window
  const std::int64_t* starts;
  const std::int64_t* lengths;
  std::int64_t n_rows, n_columns;
  std::int64_t out_stride;  // values from one row to the next
  void* out;
  DecodedType decoded;
};

// Returns -1, or the number of a window whose run's files were changed: then `out` may hold anything. Throws
// std::invalid_argument if a run has more columns than `out`.
std::int64_t gather_windows(const WindowBatch& batch, int n_threads);

}  // namespace neurokern
