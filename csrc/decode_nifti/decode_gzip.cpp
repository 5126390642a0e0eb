#include "decode_nifti/decode_gzip.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "common/thread_pool.h"
#include "decode_nifti/decode_nifti_body.h"
#include "decode_nifti/pages.h"

namespace neurokern {
namespace {

constexpr std::int64_t kGroupBytes = 4 << 20;  // of voxels that are decoded together
constexpr std::int64_t kPartBytes = 8 << 20;   // inflated bytes that are worth a seek
constexpr std::int64_t kSlackBytes = 128;      // behind a row, so that whole vectors may be read there
constexpr std::int64_t kPartsPerThread = 4;    // so that a thread that is held up does not hold up all

std::int64_t value_bytes_of(const GzipVolumes& v) { return value_bytes(v.p.type); }
std::int64_t volume_bytes(const GzipVolumes& v) { return v.p.volume_values * value_bytes_of(v); }
std::int64_t byte_of(const GzipVolumes& v, std::int64_t volume) {
  return v.p.offset + (v.first + volume) * volume_bytes(v);
}

// Volumes that share an element of 16 bytes (decode_nifti_cpu.cpp).
std::int64_t woven_volumes(const GzipVolumes& v) { return 16 / value_bytes_of(v); }

// Volumes that are decoded together: whole elements, if not even one takes too much memory.
std::int64_t group_volumes(const GzipVolumes& v) {
  const std::int64_t row_bytes = std::max<std::int64_t>(v.p.n_voxels * value_bytes_of(v), 1);
  const std::int64_t woven = woven_volumes(v);
  return std::min(std::max<std::int64_t>(kGroupBytes / row_bytes / woven * woven, 1), v.p.n_volumes);
}

std::int64_t out_bytes(const GzipVolumes& v) {
  if (v.parcels != nullptr) return 4;  // means are float32, whatever is asked for voxels
  switch (v.p.decoded) {
    case DecodedType::f32:
      return 4;
    case DecodedType::f16:
    case DecodedType::bf16:
      return 2;
    default:
      return value_bytes_of(v);
  }
}

// Gathers the mask's voxels of volumes that come in order, and decodes them group by group.
class Gatherer : public ByteSink {
 public:
  Gatherer(const GzipVolumes& volumes, int n_threads)
      : v_(volumes),
        n_threads_(n_threads),
        value_bytes_(value_bytes_of(volumes)),
        volume_bytes_(volume_bytes(volumes)),
        group_(group_volumes(volumes)),
        gathered_(static_cast<std::size_t>(group_ * row_bytes())) {}

  void begin(std::int64_t first, std::int64_t last) {
    first_ = first;
    left_ = last - first;
    rows_ = run_ = at_ = 0;
    to_ = gathered_.get();
  }

  void take(const unsigned char* bytes, std::int64_t n) override {
    while (n > 0) {
      const std::int64_t here = std::min(n, volume_bytes_ - at_);
      gather(bytes, here);
      at_ += here;
      bytes += here;
      n -= here;
      if (at_ == volume_bytes_) end_volume();
    }
  }

 private:
  std::int64_t row_bytes() const { return v_.p.n_voxels * value_bytes_ + kSlackBytes; }

  // Of the volume's bytes [at_, at_ + n) those of the mask; its runs are taken up where they were left.
  void gather(const unsigned char* bytes, std::int64_t n) {
    const std::int64_t end = at_ + n;
    for (; run_ < v_.p.n_runs; ++run_) {
      const std::int64_t run_begin = v_.p.run_starts[run_] * value_bytes_;
      const std::int64_t run_end = run_begin + v_.p.run_lengths[run_] * value_bytes_;
      if (run_begin >= end) return;
      const std::int64_t from = std::max(run_begin, at_), until = std::min(run_end, end);
      std::memcpy(to_, bytes + (from - at_), static_cast<std::size_t>(until - from));
      to_ += until - from;
      if (run_end > end) return;
    }
  }

  void end_volume() {
    at_ = run_ = 0;
    ++rows_;
    --left_;
    to_ = gathered_.get() + rows_ * row_bytes();
    if (rows_ == group_ || left_ == 0) decode();
  }

  void decode() {
    const std::int64_t start = 0, length = v_.p.n_voxels;
    DecodeVolumes p = v_.p;
    p.mapped = gathered_.get();
    p.offset = 0;
    p.volume_values = row_bytes() / value_bytes_;
    p.n_volumes = rows_;
    p.run_starts = &start;
    p.run_lengths = &length;
    p.n_runs = 1;
    p.out = static_cast<unsigned char*>(p.out) + first_ * p.out_stride * out_bytes(v_);
    const DecodeStatus status = v_.parcels != nullptr
                                    ? NK_DISPATCH(decode_parcels_cpu, p, *v_.parcels, n_threads_)
                                    : NK_DISPATCH(decode_volumes_cpu, p, n_threads_);
    if (status != DecodeStatus::ok) throw std::bad_alloc();
    first_ += rows_;
    rows_ = 0;
    to_ = gathered_.get();
  }

  const GzipVolumes& v_;
  const int n_threads_;
  const std::int64_t value_bytes_, volume_bytes_, group_;
  const Pages gathered_;  // (group_, n_voxels)
  unsigned char* to_ = nullptr;
  std::int64_t first_ = 0, left_ = 0;         // of the request: the volume of row 0, volumes to come
  std::int64_t rows_ = 0, run_ = 0, at_ = 0;  // whole rows; run and byte within the volume
};

// What went wrong, and in which volume.
std::string message_of(const StreamError& error, const GzipVolumes& v) {
  const std::int64_t volume = (error.inflated - v.p.offset) / volume_bytes(v);
  const bool in_values = error.inflated >= v.p.offset && volume < v.all_volumes;
  return std::string(error.what()) + (in_values ? ", in volume " + std::to_string(volume) : std::string());
}

[[noreturn]] void too_short(const GzipVolumes& v, std::int64_t volume) {
  throw StreamError("the stream must hold " + std::to_string(v.all_volumes) + " volumes, it ends in volume " +
                    std::to_string(v.first + volume));
}

// Volumes [first, last) of the request from seek points.
class KnownVolumes {
 public:
  KnownVolumes(GzipStream& stream, const GzipVolumes& volumes, std::int64_t first, std::int64_t last)
      : stream_(stream), v_(volumes), first_(first), last_(last), points_(stream.index.entries()) {}

  void decode(int n_threads) {
    const std::int64_t n = last_ - first_, threads = std::min<std::int64_t>(n_threads, n);
    const std::int64_t least = std::max<std::int64_t>(kPartBytes / volume_bytes(v_), 1);
    // No part is so short that its seek counts, none so long that all wait for the last.
    const std::int64_t share = (n + threads - 1) / threads, woven = woven_volumes(v_);
    part_ = std::min(std::max(n / (threads * kPartsPerThread), least), share);
    if (share >= woven) part_ = std::min((part_ + woven - 1) / woven * woven, share);
    const std::int64_t tasks = std::min(threads, (n + part_ - 1) / part_);
    errors_.resize(static_cast<std::size_t>(tasks));
    parallel_for(tasks, static_cast<int>(tasks), &KnownVolumes::run, this);
    if (out_of_memory_) throw std::bad_alloc();
    for (const std::string& error : errors_)
      if (!error.empty()) throw StreamError(error);
  }

 private:
  static void run(void* context, std::int64_t task) {
    KnownVolumes& known = *static_cast<KnownVolumes*>(context);
    try {
      known.decode_parts();
    } catch (const std::bad_alloc&) {
      known.out_of_memory_ = true;
    } catch (const StreamError& error) {
      known.errors_[static_cast<std::size_t>(task)] = message_of(error, known.v_);
    }
  }

  void decode_parts() {
    GzipReader reader = stream_.make_reader();
    Gatherer gatherer(v_, 1);
    for (std::int64_t first; (first = first_ + part_ * next_part_++) < last_;) {
      const std::int64_t last = std::min(first + part_, last_);
      gatherer.begin(first, last);
      const std::int64_t n = stream_.read(reader, points_, byte_of(v_, first), byte_of(v_, last), gatherer);
      if (n < byte_of(v_, last) - byte_of(v_, first)) too_short(v_, first + n / volume_bytes(v_));
    }
  }

  GzipStream& stream_;
  const GzipVolumes& v_;
  const std::int64_t first_, last_;
  const std::vector<GzipIndex::Entry> points_;
  std::int64_t part_ = 1;
  std::atomic<std::int64_t> next_part_{0};
  std::atomic<bool> out_of_memory_{false};
  std::vector<std::string> errors_;
};

// Volumes [first, end) of the request by taking the pass on; false if another thread is at it.
bool extend(GzipStream& stream, const GzipVolumes& v, std::int64_t first, int n_threads) {
  Gatherer gatherer(v, n_threads);
  gatherer.begin(first, v.p.n_volumes);
  const std::int64_t from = byte_of(v, first), to = byte_of(v, v.p.n_volumes);
  try {
    const std::int64_t n = stream.extend(from, to, gatherer);
    if (n < 0) return false;
    if (n < to - from) too_short(v, first + n / volume_bytes(v));
    if (v.first + v.p.n_volumes == v.all_volumes) stream.finish();
  } catch (const StreamError& error) {
    throw StreamError(message_of(error, v));
  }
  return true;
}

void decode_once(GzipStream& stream, const GzipVolumes& v, int n_threads) {
  const std::int64_t frontier = stream.frontier(), n = v.p.n_volumes;
  std::int64_t n_known = n;
  while (n_known > 0 && byte_of(v, n_known - 1) >= frontier) --n_known;
  if (n_known > 0) KnownVolumes(stream, v, 0, n_known).decode(n_threads);
  if (n_known < n && !extend(stream, v, n_known, n_threads))
    KnownVolumes(stream, v, n_known, n).decode(n_threads);
}

}  // namespace

void decode_gzip(GzipStream& stream, const GzipVolumes& volumes, int n_threads) {
  if (volumes.p.n_volumes == 0 || volumes.p.n_voxels == 0) return;
  try {
    decode_once(stream, volumes, n_threads);
  } catch (const StreamError&) {
    if (stream.index.n_saved() == 0) throw;
    stream.forget();
    decode_once(stream, volumes, n_threads);
  }
}

std::int64_t inflate_start(int descriptor, std::int64_t file_bytes, unsigned char* to, std::int64_t n) {
  GzipReader reader(descriptor, file_bytes);
  reader.start();
  std::int64_t done = 0;
  while (done < n && !reader.ended()) {
    const auto piece = reader.next(n - done, false);
    std::memcpy(to + done, piece.bytes, static_cast<std::size_t>(piece.n));
    done += piece.n;
  }
  return done;
}

}  // namespace neurokern
