#include "decode_nifti/stored_runs.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <string>

#include "common/isa.h"

namespace neurokern {
namespace {

void check_columns(const WindowBatch& batch) {
  for (const StoredRun* run : batch.runs)
    if (run->rows.n_columns > batch.n_columns)
      throw std::invalid_argument("gather_windows: out must have a column for each of the run's " +
                                  std::to_string(run->rows.n_columns) + ", it has " +
                                  std::to_string(batch.n_columns));
}

// Windows in the order in which they are written: those of one run behind each other, if it is cleaned.
std::vector<std::size_t> writing_order(const WindowBatch& batch) {
  std::vector<std::size_t> order(batch.runs.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto is_cleaned = [](const StoredRun* run) { return run->rows.origin != nullptr; };
  if (std::any_of(batch.runs.begin(), batch.runs.end(), is_cleaned))
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return std::less<const StoredRun*>()(batch.runs[a], batch.runs[b]);
    });
  return order;
}

RunWindow window_of(const WindowBatch& batch, std::size_t i) {
  const StoredRun& run = *batch.runs[i];
  const std::int64_t start = batch.starts[i];
  const std::int64_t length = batch.lengths == nullptr ? batch.n_rows : batch.lengths[i];
  const std::int64_t n_rows = std::clamp<std::int64_t>(length, 0, batch.n_rows);
  // Nothing is added to a start before it is clipped: it may be any number.
  const std::int64_t before = start < 0 ? (start > -n_rows ? -start : n_rows) : 0;
  const std::int64_t first = std::clamp<std::int64_t>(start, 0, run.n_rows);
  const std::int64_t inside = std::min(n_rows - before, run.n_rows - first);
  const std::int64_t bytes = batch.decoded == DecodedType::f32 ? 4 : 2;
  auto* out = static_cast<unsigned char*>(batch.out) +
              static_cast<std::int64_t>(i) * batch.n_rows * batch.out_stride * bytes;
  return {&run.rows, first, inside, before, batch.n_rows - before - inside, out};
}

std::int64_t find_changed(const WindowBatch& batch) {
  std::vector<const StoredRun*> runs = batch.runs;
  std::sort(runs.begin(), runs.end(), std::less<const StoredRun*>());
  runs.erase(std::unique(runs.begin(), runs.end()), runs.end());
  for (const StoredRun* run : runs)
    for (const MappedFile* file : run->files)
      if (!file->is_unchanged())
        return std::find(batch.runs.begin(), batch.runs.end(), run) - batch.runs.begin();
  return -1;
}

}  // namespace

std::int64_t gather_windows(const WindowBatch& batch, int n_threads) {
  check_columns(batch);
  const std::vector<std::size_t> order = writing_order(batch);
  std::vector<RunWindow> windows;
  std::vector<std::int64_t> groups;
  windows.reserve(order.size());
  for (const std::size_t i : order) {
    const RunWindow window = window_of(batch, i);
    const bool joins = !windows.empty() && window.run == windows.back().run && window.run->origin != nullptr;
    if (!joins) groups.push_back(static_cast<std::int64_t>(windows.size()));
    windows.push_back(window);
  }
  const auto n_groups = static_cast<std::int64_t>(groups.size());
  groups.push_back(static_cast<std::int64_t>(windows.size()));
  const GatherWindows problem{windows.data(),  groups.data(),    n_groups,
                              batch.n_columns, batch.out_stride, batch.decoded};
  NK_DISPATCH(gather_windows_cpu, problem, n_threads);
  return find_changed(batch);
}

}  // namespace neurokern
