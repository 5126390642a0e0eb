// The inflated bytes of a gzip file, from anywhere. One pass over the file, which goes on wherever the last
// call ended, checks it and leaves seek points; what it has passed is read from these.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "decode_nifti/gzip_index.h"
#include "decode_nifti/inflate.h"

namespace neurokern {

// Takes the bytes that were asked for, in order, piece by piece.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  virtual void take(const unsigned char* bytes, std::int64_t n) = 0;
};

// For several threads. Throws StreamError and std::bad_alloc.
class GzipStream {
 public:
  GzipStream(int descriptor, std::int64_t file_bytes, std::int64_t base, std::int64_t spacing);

  GzipIndex index;

  // Where the pass stands; what lies before is read from seek points. Without end when it is over.
  std::int64_t frontier() const;
  // Takes the pass on, to the byte before `to`; the sink gets those from `from` on, which must not lie before
  // the frontier. Returns the bytes that the sink got, fewer only at the stream's end; -1 if another thread
  // is at it.
  std::int64_t extend(std::int64_t from, std::int64_t to, ByteSink& sink);
  // Takes the pass to the stream's end, unless another thread is at it.
  void finish();
  // Bytes [from, to) from the nearest seek point; at all seek points on the way the checksum must be that of
  // the pass. Returns the bytes that the sink got, fewer only at the stream's end. For several threads, each
  // with a reader of its own.
  std::int64_t read(GzipReader& reader, const std::vector<GzipIndex::Entry>& points, std::int64_t from,
                    std::int64_t to, ByteSink& sink);
  GzipReader make_reader() const { return {descriptor_, file_bytes_}; }
  // Back to the start, without seek points.
  void forget();

  // Bytes inflated so far, by all threads: what the calls have cost.
  std::int64_t n_inflated() const { return n_inflated_.load(std::memory_order_relaxed); }

 private:
  void resume();
  void advance(std::int64_t from, std::int64_t to, ByteSink* sink, std::int64_t& taken);
  void keep_candidate(std::int64_t boundary);

  const int descriptor_;
  const std::int64_t file_bytes_;
  std::atomic<std::int64_t> n_inflated_{0}, position_{0};
  std::mutex pass_;  // held by the thread that takes the pass on
  std::unique_ptr<GzipReader> reader_;
  std::int64_t watched_;  // before each boundary blocks are watched for over so many bytes
  SeekPoint candidate_;
  Window candidate_window_;
  bool has_candidate_ = false;
};

}  // namespace neurokern
