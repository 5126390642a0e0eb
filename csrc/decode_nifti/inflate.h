// Gzip files from any point: a first pass inflates, checks and keeps seek points; later ones start from
// there.
//
// The decoder is zlib-ng, or zlib where the build found no other (NEUROKERN_INFLATE). A seek point is the
// start of a Deflate block with the 32 KiB before it (the method of zlib's examples/zran.c by Mark Adler).
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace neurokern {

constexpr std::int64_t kWindowBytes = 32768;  // how far back Deflate refers

// The compressed stream is not what it should be; the reader of the file adds its name.
struct StreamError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct SeekPoint {
  std::int64_t out;  // bytes of the stream before it, inflated
  std::int64_t in;   // first whole byte of the block, in the file
  int bits;          // of the byte before `in` that belong to the block
  std::vector<unsigned char> window;
};

// Seek points in ascending order: of each stretch of `spacing` inflated bytes from `base` on the last block
// start, so that the stretch that follows begins right behind it.
struct GzipIndex {
  std::int64_t base = 0, spacing = 0;
  std::int64_t file_bytes = 0;   // of the compressed file
  std::int64_t total_bytes = 0;  // inflated
  std::vector<SeekPoint> points;

  std::string to_bytes() const;
  static GzipIndex from_bytes(const std::string& bytes);  // throws StreamError
};

// Reads the inflated stream in order. Not for several threads at once; several readers may share a
// descriptor.
class GzipReader {
 public:
  // From the file's start; checks the CRC and length of each member. If `index` is given it is filled.
  GzipReader(int descriptor, std::int64_t file_bytes, GzipIndex* index);
  // From the last seek point at or before `out`, skipping what lies between. Checks no CRC.
  GzipReader(int descriptor, const GzipIndex& index, std::int64_t out);
  ~GzipReader();

  // Inflates up to n bytes; fewer only at the stream's end. Throws StreamError.
  std::int64_t read(unsigned char* to, std::int64_t n);
  std::int64_t position() const;  // inflated bytes before the next

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace neurokern
