#include "decode_nifti/inflate.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sstream>

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

constexpr std::int64_t kInputBytes = 128 << 10;
constexpr int kRaw = -15, kGzip = 15 + 16;  // windowBits: a bare stream, or members with header and trailer
constexpr std::int64_t kTrailerBytes = 8;   // CRC and length, which a bare stream does not read
constexpr char kIndexMagic[8] = {'n', 'k', 'g', 'z', 'i', 'd', 'x', '1'};

template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw StreamError(text.str());
}

// Numbers of the index as bytes, in the order of this machine: an index is a cache, not for exchange.
class Writer {
 public:
  void number(std::int64_t value) { bytes.append(reinterpret_cast<const char*>(&value), sizeof value); }
  std::string bytes;
};

class Parser {
 public:
  explicit Parser(const std::string& bytes) : bytes_(bytes) {}
  std::int64_t number(std::int64_t low, std::int64_t high) {
    std::int64_t value = 0;
    std::memcpy(&value, take(sizeof value), sizeof value);
    if (value < low || value > high) fail("the index of the gzip stream is damaged");
    return value;
  }
  const char* take(std::size_t n) {
    if (bytes_.size() - at_ < n) fail("the index of the gzip stream is cut short");
    at_ += n;
    return bytes_.data() + at_ - n;
  }
  bool at_end() const { return at_ == bytes_.size(); }

 private:
  const std::string& bytes_;
  std::size_t at_ = 0;
};

}  // namespace

std::string GzipIndex::to_bytes() const {
  Writer writer;
  writer.bytes.assign(kIndexMagic, sizeof kIndexMagic);
  for (const std::int64_t value :
       {base, spacing, file_bytes, total_bytes, static_cast<std::int64_t>(points.size())})
    writer.number(value);
  for (const SeekPoint& point : points) {
    for (const std::int64_t value : {point.out, point.in, static_cast<std::int64_t>(point.bits),
                                     static_cast<std::int64_t>(point.window.size())})
      writer.number(value);
    writer.bytes.append(point.window.begin(), point.window.end());
  }
  return writer.bytes;
}

GzipIndex GzipIndex::from_bytes(const std::string& bytes) {
  constexpr std::int64_t kMost = std::int64_t{1} << 62;
  Parser parser(bytes);
  if (std::memcmp(parser.take(sizeof kIndexMagic), kIndexMagic, sizeof kIndexMagic) != 0)
    fail("the index of the gzip stream is of another version");
  GzipIndex index;
  index.base = parser.number(0, kMost);
  index.spacing = parser.number(1, kMost);
  index.file_bytes = parser.number(0, kMost);
  index.total_bytes = parser.number(0, kMost);
  std::int64_t n_points = parser.number(0, kMost), before = -1;
  for (; n_points > 0; --n_points) {
    SeekPoint point;
    point.out = parser.number(before + 1, index.total_bytes);
    point.in = parser.number(1, index.file_bytes);
    point.bits = static_cast<int>(parser.number(0, 7));
    const auto n = static_cast<std::size_t>(parser.number(0, kWindowBytes));
    const char* window = parser.take(n);
    point.window.assign(window, window + n);
    before = point.out;
    index.points.push_back(std::move(point));
  }
  if (!parser.at_end()) fail("the index of the gzip stream is damaged");
  return index;
}

struct GzipReader::State {
  int descriptor;
  std::int64_t file_bytes;
  GzipIndex* index;
  ZStream stream{};
  bool raw = false, ended = false;
  std::int64_t out = 0;      // inflated so far
  std::int64_t next_in = 0;  // of the file, behind what was read into `input`
  std::vector<unsigned char> input = std::vector<unsigned char>(static_cast<std::size_t>(kInputBytes));
  std::vector<unsigned char> recent;  // the last bytes inflated, for seek points

  State(int file, std::int64_t bytes, GzipIndex* points)
      : descriptor(file), file_bytes(bytes), index(points) {}
  ~State() { NK_Z(inflateEnd)(&stream); }

  std::int64_t position_in() const { return next_in - static_cast<std::int64_t>(stream.avail_in); }

  void begin(int window_bits) {
    if (NK_Z(inflateInit2)(&stream, window_bits) != Z_OK) throw std::bad_alloc();
  }

  // More input, if there is any; what is left of the old moves to the front.
  void refill() {
    if (stream.avail_in > 0) std::memmove(input.data(), stream.next_in, stream.avail_in);
    stream.next_in = input.data();
    while (stream.avail_in < input.size()) {
      const ssize_t n =
          pread(descriptor, input.data() + stream.avail_in, input.size() - stream.avail_in, next_in);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail("reading at byte ", next_in, " failed: ", std::strerror(errno));
      if (n == 0) return;
      stream.avail_in += static_cast<unsigned>(n);
      next_in += n;
    }
  }

  // After a member: skips padding of zeros; true if another member follows. Other bytes behind it are
  // ignored, as gzip does.
  bool next_member() {
    if (raw) {
      skip_input(kTrailerBytes);
      raw = false;
    }
    for (;;) {
      while (stream.avail_in > 0 && *stream.next_in == 0) ++stream.next_in, --stream.avail_in;
      if (stream.avail_in >= 2) break;
      const unsigned before = stream.avail_in;
      refill();
      if (stream.avail_in == before) break;
    }
    if (stream.avail_in < 2 || stream.next_in[0] != 0x1F || stream.next_in[1] != 0x8B) return false;
    NK_Z(inflateReset2)(&stream, kGzip);
    return true;
  }

  void skip_input(std::int64_t n) {
    if (static_cast<std::int64_t>(stream.avail_in) < n) refill();
    const auto skipped = std::min<std::int64_t>(n, stream.avail_in);
    stream.next_in += skipped;
    stream.avail_in -= static_cast<unsigned>(skipped);
  }

  std::int64_t stretch(std::int64_t at) const {
    return (at + index->spacing - index->base % index->spacing) / index->spacing;
  }

  // Keeps the last block start of each stretch, so that a stretch's first byte is near behind a point.
  void note_block() {
    if (raw || (stream.data_type & 128) == 0 || (stream.data_type & 64) != 0) return;
    if (!index->points.empty() && stretch(index->points.back().out) == stretch(out)) index->points.pop_back();
    SeekPoint point{out, position_in(), stream.data_type & 7, {}};
    const std::size_t window = std::min<std::size_t>(recent.size(), static_cast<std::size_t>(kWindowBytes));
    point.window.assign(recent.end() - static_cast<std::ptrdiff_t>(window), recent.end());
    index->points.push_back(std::move(point));
  }

  void remember(const unsigned char* bytes, std::int64_t n) {
    const auto kept = std::min(n, kWindowBytes);
    const auto old = std::min<std::int64_t>(kWindowBytes - kept, static_cast<std::int64_t>(recent.size()));
    recent.erase(recent.begin(), recent.end() - static_cast<std::ptrdiff_t>(old));
    recent.insert(recent.end(), bytes + n - kept, bytes + n);
  }

  [[noreturn]] void bad_stream(int code) const {
    if (code == Z_MEM_ERROR) throw std::bad_alloc();
    if (code == Z_BUF_ERROR || code == Z_OK)
      fail("the compressed stream ends at byte ", position_in(), ", after ", out,
           " inflated bytes; it is cut short");
    fail("the compressed stream is damaged at byte ", position_in(), ", after ", out, " inflated bytes",
         stream.msg != nullptr ? std::string(" (") + stream.msg + ")" : std::string());
  }
};

GzipReader::GzipReader(int descriptor, std::int64_t file_bytes, GzipIndex* index)
    : state_(new State(descriptor, file_bytes, index)) {
  state_->begin(kGzip);
  if (index != nullptr) {
    index->file_bytes = file_bytes;
    index->points.clear();
  }
}

GzipReader::GzipReader(int descriptor, const GzipIndex& index, std::int64_t out)
    : state_(new State(descriptor, index.file_bytes, nullptr)) {
  State& s = *state_;
  const auto after =
      std::upper_bound(index.points.begin(), index.points.end(), out,
                       [](std::int64_t value, const SeekPoint& point) { return value < point.out; });
  if (after == index.points.begin()) {
    s.begin(kGzip);
  } else {
    const SeekPoint& point = *(after - 1);
    s.raw = true;
    s.begin(kRaw);
    s.out = point.out;
    s.next_in = point.in - (point.bits > 0 ? 1 : 0);
    s.refill();
    if (point.bits > 0) {
      if (s.stream.avail_in == 0) s.bad_stream(Z_BUF_ERROR);
      NK_Z(inflatePrime)(&s.stream, point.bits, *s.stream.next_in >> (8 - point.bits));
      ++s.stream.next_in, --s.stream.avail_in;
    }
    NK_Z(inflateSetDictionary)(&s.stream, point.window.data(), static_cast<unsigned>(point.window.size()));
  }
  std::vector<unsigned char> skipped(static_cast<std::size_t>(kInputBytes));
  while (s.out < out) {
    const std::int64_t n = read(skipped.data(), std::min(out - s.out, kInputBytes));
    if (n == 0) s.bad_stream(Z_BUF_ERROR);
  }
}

GzipReader::~GzipReader() = default;

std::int64_t GzipReader::position() const { return state_->out; }

std::int64_t GzipReader::read(unsigned char* to, std::int64_t n) {
  State& s = *state_;
  std::int64_t done = 0;
  while (done < n && !s.ended) {
    if (s.stream.avail_in == 0) s.refill();
    const bool no_input = s.stream.avail_in == 0;
    // Small steps while indexing, so that the window lies at hand when a block ends.
    const std::int64_t step = std::min<std::int64_t>(n - done, std::int64_t{1} << 30);
    s.stream.next_out = to + done;
    s.stream.avail_out = static_cast<unsigned>(step);
    const int code = NK_Z(inflate)(&s.stream, s.index != nullptr ? Z_BLOCK : Z_NO_FLUSH);
    const std::int64_t inflated = step - static_cast<std::int64_t>(s.stream.avail_out);
    done += inflated;
    s.out += inflated;
    if (s.index != nullptr) {
      s.remember(to + done - inflated, inflated);
      if (code == Z_OK) s.note_block();
    }
    if (code == Z_STREAM_END) {
      if (!s.next_member()) {
        s.ended = true;
        if (s.index != nullptr) s.index->total_bytes = s.out;
      }
    } else if ((code != Z_OK && code != Z_BUF_ERROR) || (no_input && inflated == 0)) {
      s.bad_stream(code);
    }
  }
  return done;
}

}  // namespace neurokern
