#include "decode_nifti/gzip_stream.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace neurokern {
namespace {

constexpr std::int64_t kEnd = std::numeric_limits<std::int64_t>::max();
// zlib's blocks inflate to some 50 KiB of fMRI. Each stop at one costs as much as inflating 4 KiB.
constexpr std::int64_t kWatchedBytes = 128 << 10;

}  // namespace

GzipStream::GzipStream(int descriptor, std::int64_t file_bytes, std::int64_t base, std::int64_t spacing)
    : index(file_bytes, base, spacing),
      descriptor_(descriptor),
      file_bytes_(file_bytes),
      watched_(kWatchedBytes) {}

std::int64_t GzipStream::frontier() const {
  return index.is_complete() ? kEnd : std::max(position_.load(), index.reach());
}

// A reader where the pass stands; another process may have taken the index further.
void GzipStream::resume() {
  const std::int64_t reach = index.reach();
  if (reader_ != nullptr && reader_->point().out >= reach) return;
  auto reader = std::make_unique<GzipReader>(descriptor_, file_bytes_);
  const auto points = index.entries();
  if (points.empty())
    reader->start();
  else
    reader->start_at(points.back().point, index.window_of(points.back()));
  has_candidate_ = false;
  reader_ = std::move(reader);
}

// Between boundaries the decoder runs without a stop; before each it stops at blocks, of which the last
// becomes a seek point.
void GzipStream::advance(std::int64_t from, std::int64_t to, ByteSink* sink, std::int64_t& taken) {
  GzipReader& reader = *reader_;
  for (std::int64_t at; (at = reader.point().out) < to && !reader.ended();) {
    const std::int64_t boundary = index.next_boundary(at), ahead = boundary - at;
    const bool watch = ahead <= watched_;
    const std::int64_t until = at < from ? std::min(from, to) : to;
    const auto piece = reader.next(std::min(watch ? ahead : ahead - watched_, until - at), watch);
    n_inflated_.fetch_add(piece.n, std::memory_order_relaxed);
    if (at >= from && sink != nullptr && piece.n > 0) {
      sink->take(piece.bytes, piece.n);
      taken += piece.n;
    }
    if (reader.at_block()) {
      candidate_ = reader.point();
      candidate_window_ = reader.window();
      has_candidate_ = true;
    }
    if (reader.point().out == boundary) keep_candidate(boundary);
  }
}

void GzipStream::keep_candidate(std::int64_t boundary) {
  if (has_candidate_)
    index.add(candidate_, std::move(candidate_window_));
  else if (boundary > watched_)  // long blocks: watch for longer
    watched_ = std::min(2 * watched_, kEnd / 4);
  has_candidate_ = false;
}

std::int64_t GzipStream::extend(std::int64_t from, std::int64_t to, ByteSink& sink) {
  const std::unique_lock<std::mutex> lock(pass_, std::try_to_lock);
  if (!lock.owns_lock()) return -1;
  std::int64_t taken = 0;
  try {
    resume();
    if (reader_->point().out > from) return -1;
    advance(from, to, &sink, taken);
  } catch (...) {
    reader_.reset();
    position_ = 0;
    throw;
  }
  position_ = reader_->point().out;
  return taken;
}

void GzipStream::finish() {
  const std::unique_lock<std::mutex> lock(pass_, std::try_to_lock);
  if (!lock.owns_lock() || index.is_complete()) return;
  std::int64_t taken = 0;
  try {
    resume();
    advance(0, kEnd, nullptr, taken);
  } catch (...) {
    reader_.reset();
    position_ = 0;
    throw;
  }
  index.complete();
  reader_.reset();
}

std::int64_t GzipStream::read(GzipReader& reader, const std::vector<GzipIndex::Entry>& points,
                              std::int64_t from, std::int64_t to, ByteSink& sink) {
  auto next = std::upper_bound(
      points.begin(), points.end(), from,
      [](std::int64_t value, const GzipIndex::Entry& entry) { return value < entry.point.out; });
  if (next == points.begin())
    reader.start();
  else
    reader.start_at((next - 1)->point, index.window_of(*(next - 1)));
  std::int64_t taken = 0;
  for (std::int64_t at; (at = reader.point().out) < to && !reader.ended();) {
    std::int64_t until = at < from ? from : to;
    if (next != points.end()) until = std::min(until, next->point.out);
    const auto piece = reader.next(until - at, false);
    n_inflated_.fetch_add(piece.n, std::memory_order_relaxed);
    if (at >= from && piece.n > 0) {
      sink.take(piece.bytes, piece.n);
      taken += piece.n;
    }
    if (next == points.end() || reader.point().out < next->point.out) continue;
    const SeekPoint &here = reader.point(), &there = next->point;
    // A point at a member's start is reached before its header is read.
    if (here.member == there.member && here.crc != there.crc)
      throw StreamError(
          "what is inflated before byte " + std::to_string(there.in) +
          " is not what the first pass read; the file was changed, or its seek points are damaged");
    ++next;
  }
  return taken;
}

void GzipStream::forget() {
  const std::lock_guard<std::mutex> lock(pass_);
  index.forget();
  reader_.reset();
  position_ = 0;
  has_candidate_ = false;
}

}  // namespace neurokern
