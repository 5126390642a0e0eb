#include "decode_nifti/inflate.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <sstream>

#include "decode_nifti/pages.h"

#if defined(NEUROKERN_ZLIB_NG)
#include <zlib-ng.h>
#define NK_Z(name) zng_##name
using ZStream = zng_stream;
#else
#include <zlib.h>
#define NK_Z(name) name
using ZStream = z_stream;
#endif

namespace neurokern {
namespace {

// Together with the window they stay in a second-level cache. Shorter pieces cost more: at each the decoder
// copies its window, and for the first 32 KiB after it takes matches from there.
constexpr std::int64_t kInputBytes = 128 << 10, kOutputBytes = 256 << 10;
constexpr int kRawBits = -15;  // a bare Deflate stream: header and trailer of a member are read here

// Flags of a member's header (RFC 1952).
constexpr unsigned kHasHeaderCrc = 2, kHasExtra = 4, kHasName = 8, kHasComment = 16, kReserved = 0xE0;

}  // namespace

std::uint32_t crc32_of(std::uint32_t crc, const void* bytes, std::size_t n) {
  const auto* at = static_cast<const unsigned char*>(bytes);
  for (std::size_t step; n > 0; at += step, n -= step) {
    step = std::min<std::size_t>(n, std::size_t{1} << 30);  // zlib counts in 32 bits
    crc = static_cast<std::uint32_t>(NK_Z(crc32)(crc, at, static_cast<unsigned>(step)));
  }
  return crc;
}

struct GzipReader::State {
  const int descriptor;
  const std::int64_t file_bytes;
  ZStream stream{};
  bool ended = false, at_block = false;
  SeekPoint at;              // the position, as a point
  std::int64_t next_in = 0;  // of the file, behind what was read into `input`
  std::uint32_t header_crc = 0;
  const Pages input{kInputBytes}, output{kWindowBytes + kOutputBytes};
  std::int64_t filled = 0;  // of `output`

  State(int file, std::int64_t bytes) : descriptor(file), file_bytes(bytes) {
    if (NK_Z(inflateInit2)(&stream, kRawBits) != Z_OK) throw std::bad_alloc();
  }
  ~State() { NK_Z(inflateEnd)(&stream); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  template <typename... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    std::ostringstream text;
    (text << ... << parts);
    throw StreamError(text.str(), at.out);
  }

  std::int64_t position_in() const { return next_in - static_cast<std::int64_t>(stream.avail_in); }

  void move_to(std::int64_t in) {
    NK_Z(inflateReset)(&stream);
    stream.avail_in = 0;
    next_in = in;
    filled = 0;
    ended = at_block = false;
    at = {};
  }

  // More input, if there is any; what is left of the old moves to the front.
  void refill() {
    if (stream.avail_in > 0) std::memmove(input.get(), stream.next_in, stream.avail_in);
    stream.next_in = input.get();
    while (stream.avail_in < kInputBytes) {
      const ssize_t n = pread(descriptor, input.get() + stream.avail_in,
                              static_cast<std::size_t>(kInputBytes) - stream.avail_in, next_in);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail("reading at byte ", next_in, " failed: ", std::strerror(errno));
      if (n == 0) return;
      stream.avail_in += static_cast<unsigned>(n);
      next_in += n;
    }
  }

  bool has_input(unsigned n) {
    if (stream.avail_in < n) refill();
    return stream.avail_in >= n;
  }

  unsigned byte() {
    if (!has_input(1)) cut_short();
    const unsigned char value = *stream.next_in;
    ++stream.next_in, --stream.avail_in;
    header_crc = crc32_of(header_crc, &value, 1);
    return value;
  }

  unsigned bytes(int n) {
    unsigned value = 0;
    for (int i = 0; i < n; ++i) value |= byte() << 8 * i;
    return value;
  }

  bool at_magic() { return has_input(2) && stream.next_in[0] == 0x1F && stream.next_in[1] == 0x8B; }

  void begin_member() {
    const std::int64_t begin = position_in();
    header_crc = 0;
    bytes(2);  // magic
    const unsigned method = byte(), flags = byte();
    if (method != 8)
      fail("the gzip member at byte ", begin, " is damaged: its method must be 8, got ", method);
    if ((flags & kReserved) != 0)
      fail("the gzip member at byte ", begin, " is damaged: its flags must be below 32, got ", flags);
    bytes(4), bytes(2);  // time, level, system
    if ((flags & kHasExtra) != 0)
      for (unsigned n = bytes(2); n > 0; --n) byte();
    for (const unsigned text : {kHasName, kHasComment})
      if ((flags & text) != 0)
        while (byte() != 0) {
        }
    if ((flags & kHasHeaderCrc) != 0) {
      const unsigned expected = header_crc & 0xFFFF;
      if (bytes(2) != expected)
        fail("the gzip member at byte ", begin, " is damaged: its header's checksum is wrong");
    }
    NK_Z(inflateReset)(&stream);
    at.member = at.out;
    at.crc = 0;
  }

  // Checks a member's end and goes on to the next, past zeros. Other bytes behind it are ignored, as gzip
  // does.
  void end_member() {
    const unsigned crc = bytes(4), length = bytes(4);
    if (crc != at.crc)
      fail("the compressed stream is damaged: the gzip member that ends at byte ", position_in(), ", after ",
           at.out, " inflated bytes, must have the checksum ", crc, ", it has ", at.crc);
    if (length != static_cast<std::uint32_t>(at.out - at.member))
      fail("the compressed stream is damaged: the gzip member that ends at byte ", position_in(),
           " must have the length ", length, " modulo 2^32, it has ", at.out - at.member);
    while (has_input(1) && *stream.next_in == 0) ++stream.next_in, --stream.avail_in;
    ended = !at_magic();
    if (!ended) begin_member();
  }

  void make_room() {
    if (filled < kWindowBytes + kOutputBytes) return;
    std::memmove(output.get(), output.get() + filled - kWindowBytes, kWindowBytes);
    filled = kWindowBytes;
  }

  // Returns the bytes inflated; false in `more` at a member's end.
  std::int64_t inflate_some(std::int64_t most, int flush, bool& more) {
    make_room();
    const bool no_input = !has_input(1);
    const std::int64_t room = std::min(most, kWindowBytes + kOutputBytes - filled);
    unsigned char* to = output.get() + filled;
    stream.next_out = to;
    stream.avail_out = static_cast<unsigned>(room);
    const int code = NK_Z(inflate)(&stream, flush);
    const std::int64_t n = room - static_cast<std::int64_t>(stream.avail_out);
    at.crc = crc32_of(at.crc, to, static_cast<std::size_t>(n));
    at.out += n;
    filled += n;
    more = code != Z_STREAM_END;
    if (!more) return n;
    if (code == Z_MEM_ERROR) throw std::bad_alloc();
    if (no_input && n == 0) cut_short();
    if (code != Z_OK && code != Z_BUF_ERROR) damaged();
    return n;
  }

  void note_block() {
    at_block = true;
    at.in = position_in();
    at.bits = 0;
  }

  [[noreturn]] void cut_short() const {
    fail("the compressed stream ends at byte ", position_in(), ", after ", at.out,
         " inflated bytes; it is cut short");
  }

  [[noreturn]] void damaged() const {
    fail("the compressed stream is damaged at byte ", position_in(), ", after ", at.out, " inflated bytes",
         stream.msg != nullptr ? std::string(" (") + stream.msg + ")" : std::string());
  }
};

GzipReader::GzipReader(int descriptor, std::int64_t file_bytes) : state_(new State(descriptor, file_bytes)) {}
GzipReader::~GzipReader() = default;

bool GzipReader::at_block() const { return state_->at_block; }
bool GzipReader::ended() const { return state_->ended; }
const SeekPoint& GzipReader::point() const { return state_->at; }

Window GzipReader::window() const {
  const State& s = *state_;
  const std::int64_t n = std::min({s.filled, kWindowBytes, s.at.out - s.at.member});
  return Window(s.output.get() + s.filled - n, s.output.get() + s.filled);
}

void GzipReader::start() {
  state_->move_to(0);
  if (!state_->at_magic()) state_->fail("the compressed stream must start with the bytes 1f 8b of gzip");
  state_->begin_member();
}

void GzipReader::start_at(const SeekPoint& point, const Window& window) {
  State& s = *state_;
  s.move_to(point.in - (point.bits > 0 ? 1 : 0));
  s.at = point;
  if (point.bits > 0) {
    const unsigned shared = s.byte();
    NK_Z(inflatePrime)(&s.stream, static_cast<int>(point.bits), static_cast<int>(shared >> (8 - point.bits)));
  }
  const std::size_t n = std::min(window.size(), static_cast<std::size_t>(kWindowBytes));
  if (n > 0) NK_Z(inflateSetDictionary)(&s.stream, window.data(), static_cast<unsigned>(n));
  std::copy(window.begin(), window.begin() + static_cast<std::ptrdiff_t>(n), s.output.get());
  s.filled = static_cast<std::int64_t>(n);
}

GzipReader::Piece GzipReader::next(std::int64_t most, bool stop_at_blocks) {
  State& s = *state_;
  s.at_block = false;
  while (most > 0 && !s.ended) {
    bool more = true;
    const std::int64_t n = s.inflate_some(most, stop_at_blocks ? Z_BLOCK : Z_NO_FLUSH, more);
    const Piece piece{s.output.get() + s.filled - n, n};
    if (!more) {
      s.end_member();
      if (stop_at_blocks && !s.ended) s.note_block();
    } else if (stop_at_blocks && (s.stream.data_type & 192) == 128) {  // a block ended, not the last one
      s.note_block();
      s.at.bits = static_cast<std::uint32_t>(s.stream.data_type & 7);
    }
    if (n > 0 || s.at_block) return piece;
  }
  return {s.output.get() + s.filled, 0};
}

}  // namespace neurokern
