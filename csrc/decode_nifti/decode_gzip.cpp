#include "decode_nifti/decode_gzip.h"

#include <algorithm>
#include <new>
#include <string>
#include <vector>

#include "common/thread_pool.h"
#include "decode_nifti/decode_nifti_body.h"

namespace neurokern {
namespace {

constexpr std::int64_t kGroupBytes = 4 << 20;  // inflated at once, if that is several volumes

std::int64_t volume_bytes(const DecodeVolumes& p) { return p.volume_values * value_bytes(p.type); }

// Whole elements of volumes (common/decode_nifti_cpu.cpp), as many as fit.
std::int64_t group_volumes(const DecodeVolumes& p) {
  const std::int64_t together = 16 / value_bytes(p.type);
  const std::int64_t fitting = kGroupBytes / volume_bytes(p) / together * together;
  return std::min(std::max(fitting, together), p.n_volumes);
}

std::int64_t out_bytes(const GzipVolumes& volumes) {
  if (volumes.parcels != nullptr) return 4;  // means are float32, whatever is asked for voxels
  switch (volumes.p.decoded) {
    case DecodedType::f32:
      return 4;
    case DecodedType::f16:
    case DecodedType::bf16:
      return 2;
    default:
      return value_bytes(volumes.p.type);
  }
}

void read_volumes(GzipReader& reader, const GzipVolumes& volumes, std::int64_t volume, std::int64_t n,
                  std::vector<unsigned char>& buffer) {
  const std::int64_t bytes = n * volume_bytes(volumes.p);
  std::int64_t got = 0;
  try {
    got = reader.read(buffer.data(), bytes);
  } catch (const StreamError& error) {
    const std::int64_t at = (reader.position() - volumes.p.offset) / volume_bytes(volumes.p);
    throw StreamError(std::string(error.what()) + ", in volume " + std::to_string(at));
  }
  if (got < bytes)
    throw StreamError("the stream must hold " + std::to_string(volumes.all_volumes) +
                      " volumes, it ends in volume " +
                      std::to_string(volume + got / volume_bytes(volumes.p)));
}

void skip_to(GzipReader& reader, std::int64_t position, std::vector<unsigned char>& buffer) {
  while (reader.position() < position) {
    const std::int64_t wanted =
        std::min(position - reader.position(), static_cast<std::int64_t>(buffer.size()));
    if (reader.read(buffer.data(), wanted) == 0)
      throw StreamError("the stream ends after " + std::to_string(reader.position()) +
                        " bytes, before its values");
  }
}

// Volumes [first, last) of the request, which the reader stands before.
void decode_from(GzipReader& reader, const GzipVolumes& volumes, std::int64_t first, std::int64_t last,
                 std::vector<unsigned char>& buffer, int n_threads) {
  DecodeVolumes part = volumes.p;
  part.mapped = buffer.data();
  part.offset = 0;
  for (std::int64_t v = first; v < last; v += part.n_volumes) {
    part.n_volumes = std::min(group_volumes(volumes.p), last - v);
    read_volumes(reader, volumes, volumes.first + v, part.n_volumes, buffer);
    part.out = static_cast<unsigned char*>(volumes.p.out) + v * volumes.p.out_stride * out_bytes(volumes);
    const DecodeStatus status = volumes.parcels != nullptr
                                    ? NK_DISPATCH(decode_parcels_cpu, part, *volumes.parcels, n_threads)
                                    : NK_DISPATCH(decode_volumes_cpu, part, n_threads);
    if (status != DecodeStatus::ok) throw std::bad_alloc();
  }
}

std::vector<unsigned char> make_buffer(const DecodeVolumes& p) {
  return std::vector<unsigned char>(static_cast<std::size_t>(group_volumes(p) * volume_bytes(p)));
}

struct Parts {
  const GzipVolumes& volumes;
  const GzipIndex& index;
  std::int64_t n_parts;
  std::vector<std::string> errors;
  std::vector<char> out_of_memory;

  static void run(void* context, std::int64_t part) {
    Parts& parts = *static_cast<Parts*>(context);
    const auto at = static_cast<std::size_t>(part);
    try {
      parts.decode(part);
    } catch (const std::bad_alloc&) {
      parts.out_of_memory[at] = 1;
    } catch (const std::exception& error) {
      parts.errors[at] = error.what();
    }
  }

  void decode(std::int64_t part) {
    const DecodeVolumes& p = volumes.p;
    const std::int64_t first = p.n_volumes * part / n_parts, last = p.n_volumes * (part + 1) / n_parts;
    std::vector<unsigned char> buffer = make_buffer(p);
    GzipReader reader(volumes.descriptor, index, p.offset + (volumes.first + first) * volume_bytes(p));
    decode_from(reader, volumes, first, last, buffer, 1);
  }
};

}  // namespace

void decode_gzip(const GzipVolumes& volumes, GzipIndex* index, int n_threads) {
  std::vector<unsigned char> buffer = make_buffer(volumes.p);
  GzipReader reader(volumes.descriptor, volumes.file_bytes, index);
  skip_to(reader, volumes.p.offset + volumes.first * volume_bytes(volumes.p), buffer);
  decode_from(reader, volumes, 0, volumes.p.n_volumes, buffer, n_threads);
  const bool all = volumes.first + volumes.p.n_volumes == volumes.all_volumes;
  if (index == nullptr && !all) return;
  while (reader.read(buffer.data(), static_cast<std::int64_t>(buffer.size())) > 0) {
  }
}

void decode_gzip_indexed(const GzipVolumes& volumes, const GzipIndex& index, int n_threads) {
  const std::int64_t most = std::max<std::int64_t>(1, std::min<std::int64_t>(n_threads, volumes.p.n_volumes));
  Parts parts{volumes, index, most, std::vector<std::string>(static_cast<std::size_t>(most)),
              std::vector<char>(static_cast<std::size_t>(most))};
  parallel_for(most, static_cast<int>(most), &Parts::run, &parts);
  for (const char failed : parts.out_of_memory)
    if (failed != 0) throw std::bad_alloc();
  for (const std::string& error : parts.errors)
    if (!error.empty()) throw StreamError(error);
}

}  // namespace neurokern
