// Gzip files from their start or from a seek point, piece by piece.
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
  explicit StreamError(const std::string& what, std::int64_t out = -1)
      : std::runtime_error(what), inflated(out) {}
  std::int64_t inflated;  // bytes before the place; -1: not known
};

struct SeekPoint {
  std::int64_t out = 0;     // inflated bytes before it
  std::int64_t in = 0;      // first whole byte of the block, in the file
  std::int64_t member = 0;  // inflated bytes before the block's member
  std::uint32_t crc = 0;    // of the member's inflated bytes before the block
  std::uint32_t bits = 0;   // of the byte before `in` that belong to the block
};

using Window = std::vector<unsigned char>;  // the inflated bytes before a seek point

// CRC-32 of bytes, going on from `crc`.
std::uint32_t crc32_of(std::uint32_t crc, const void* bytes, std::size_t n);

// Not for several threads at once; several readers may share a descriptor. The checksum and the length of
// each member are checked at its end, from wherever it was read. All but the destructor throw StreamError
// and std::bad_alloc.
class GzipReader {
 public:
  GzipReader(int descriptor, std::int64_t file_bytes);
  ~GzipReader();

  void start();
  void start_at(const SeekPoint& point, const Window& window);

  struct Piece {
    const unsigned char* bytes;  // until the next call
    std::int64_t n;
  };
  // Inflates up to `most` bytes; none at the stream's end. With `stop_at_blocks` it returns wherever a block
  // starts, maybe without bytes.
  Piece next(std::int64_t most, bool stop_at_blocks);

  bool at_block() const;  // whether the last call stopped where a block starts, which point() then is
  bool ended() const;
  const SeekPoint& point() const;  // `out`, `crc` and `member` are always those of the position
  Window window() const;           // before the position

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace neurokern
