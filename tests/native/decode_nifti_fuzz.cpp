// One hostile file for all that decodes NIfTI: header, values by both routes, gzip stream, seek points.
//
// A target of libFuzzer (tests/native/fuzz_decode_nifti.sh), or with a main of its own that mutates seeds:
// what tests/run_sanitized.sh runs. An input is eight bytes of options and a file. Errors are answers; a
// crash, a read out of bounds and two routes that disagree are faults.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "decode_nifti/decode_gzip.h"
#include "decode_nifti/decode_nifti.h"
#include "decode_nifti/header.h"
#include "decode_nifti/mask_runs.h"

namespace {

using namespace neurokern;

constexpr std::int64_t kMostValues = 1 << 15;  // of a volume; what is larger only takes longer
constexpr std::int64_t kMostVolumes = 6;

[[noreturn]] void fault(const char* what) {
  std::fprintf(stderr, "decode_nifti_fuzz: %s\n", what);
  std::abort();
}

void expect(bool holds, const char* what) {
  if (!holds) fault(what);
}

struct Options {
  bool hostile_index;
  DecodedType decoded;
  int first, n_volumes, n_threads;
  bool parcels;
  unsigned mask_seed;
};

Options options_of(const std::uint8_t* b) {
  return {
      b[0] % 4 == 3,     static_cast<DecodedType>(b[1] % 4), b[2], 1 + b[3] % 4, 1 + b[4] % 3, b[5] % 4 == 0,
      b[6] * 256u + b[7]};
}

// The file as a descriptor, the same one for all inputs.
int descriptor_of(const std::uint8_t* bytes, std::size_t n) {
  static const int descriptor = memfd_create("decode_nifti_fuzz", 0);
  expect(descriptor >= 0 && ftruncate(descriptor, 0) == 0, "no file in memory could be made");
  expect(pwrite(descriptor, bytes, n, 0) == static_cast<ssize_t>(n),
         "the file in memory could not be written");
  return descriptor;
}

bool voxel_type(nifti::DataType type, VoxelType* to) {
  using nifti::DataType;
  static const struct {
    DataType from;
    VoxelType to;
  } kTypes[] = {{DataType::u8, VoxelType::u8},   {DataType::i8, VoxelType::i8},
                {DataType::u16, VoxelType::u16}, {DataType::i16, VoxelType::i16},
                {DataType::u32, VoxelType::u32}, {DataType::i32, VoxelType::i32},
                {DataType::u64, VoxelType::u64}, {DataType::i64, VoxelType::i64},
                {DataType::f32, VoxelType::f32}, {DataType::f64, VoxelType::f64}};
  for (const auto& pair : kTypes) {
    if (pair.from != type) continue;
    *to = pair.to;
    return true;
  }
  return false;
}

// A mask with the arrays that kernels want, of exactly the size that is promised.
struct Mask {
  MaskSize size{};
  std::unique_ptr<std::int64_t[]> starts, lengths;
  std::unique_ptr<std::int32_t[]> order;
  std::unique_ptr<std::int32_t[]> parcel_lengths, parcels;
  std::unique_ptr<double[]> parcel_sizes;
  std::unique_ptr<std::int32_t[]> parcel_voxels;  // or null: parcels are summed run by run

  Mask(const std::int64_t (&shape)[3], unsigned seed) {
    std::mt19937 generator(seed);
    const auto share = generator() % 5;  // of 4: from empty to full
    std::vector<unsigned char> mask(static_cast<std::size_t>(shape[0] * shape[1] * shape[2]));
    for (unsigned char& voxel : mask) voxel = generator() % 4 < share;
    size = measure_mask(mask.data(), shape);
    starts.reset(new std::int64_t[static_cast<std::size_t>(size.n_runs)]);
    lengths.reset(new std::int64_t[static_cast<std::size_t>(size.n_runs)]);
    order.reset(new std::int32_t[static_cast<std::size_t>(size.n_voxels)]);
    index_mask(mask.data(), shape, starts.get(), lengths.get(), order.get());
    parcel_lengths.reset(new std::int32_t[static_cast<std::size_t>(size.n_runs)]);
    parcels.reset(new std::int32_t[static_cast<std::size_t>(size.n_runs)]);
    parcel_sizes.reset(new double[kParcels]());
    for (std::int64_t run = 0; run < size.n_runs; ++run) {
      parcel_lengths[run] = static_cast<std::int32_t>(lengths[run]);
      parcels[run] = static_cast<std::int32_t>(generator() % kParcels);
      parcel_sizes[parcels[run]] += static_cast<double>(lengths[run]);
    }
    if (generator() % 2 == 0) list_voxels();
  }

  void list_voxels() {
    parcel_voxels.reset(new std::int32_t[static_cast<std::size_t>(size.n_voxels)]);
    std::int32_t* next = parcel_voxels.get();
    for (std::int32_t parcel = 0; parcel < kParcels; ++parcel)
      for (std::int64_t run = 0, at = 0; run < size.n_runs; at += lengths[run++])
        for (std::int64_t i = 0; i < lengths[run] && parcels[run] == parcel; ++i)
          *next++ = static_cast<std::int32_t>(at + i);
  }

  static constexpr std::int64_t kParcels = 5;

  ParcelRuns parcel_runs() const {
    return {parcel_lengths.get(), parcels.get(), parcel_sizes.get(),
            size.n_runs,          kParcels,      parcel_voxels.get()};
  }
};

class Request {
 public:
  Request(const nifti::Header& header, VoxelType type, const Mask& mask, const Options& options)
      : runs_(mask.parcel_runs()), parcels_(options.parcels), all_volumes_(header.shape[3]) {
    first_ = options.first % all_volumes_;
    p_.volume_values = header.shape[0] * header.shape[1] * header.shape[2];
    p_.n_volumes = std::min<std::int64_t>({options.n_volumes, all_volumes_ - first_, kMostVolumes});
    p_.offset = header.offset;
    p_.type = type;
    p_.swapped = header.swapped;
    p_.slope = header.slope;
    p_.inter = header.inter;
    p_.run_starts = mask.starts.get();
    p_.run_lengths = mask.lengths.get();
    p_.n_runs = mask.size.n_runs;
    p_.n_voxels = mask.size.n_voxels;
    p_.order = mask.order.get();
    p_.decoded = options.decoded;
    p_.out_stride = parcels_ ? Mask::kParcels : p_.n_voxels;
    static const int kBytes[] = {4, 2, 2};
    item_bytes_ = parcels_                         ? 4
                  : p_.decoded == DecodedType::raw ? header.item_size
                                                   : kBytes[static_cast<int>(p_.decoded)];
  }

  using Bytes = std::vector<unsigned char>;

  Bytes from_file(const unsigned char* mapped, int descriptor, int n_threads) {
    Bytes out = room();
    DecodeVolumes p = p_;
    p.mapped = mapped;
    p.descriptor = descriptor;
    p.offset += first_ * (p.volume_values * value_bytes());
    p.out = out.data();
    const DecodeStatus status = parcels_ ? NK_DISPATCH(decode_parcels_cpu, p, runs_, n_threads)
                                         : NK_DISPATCH(decode_volumes_cpu, p, n_threads);
    expect(status == DecodeStatus::ok, "a file that is long enough could not be read");
    return out;
  }

  Bytes from_stream(GzipStream& stream, int n_threads) {
    Bytes out = room();
    GzipVolumes volumes{p_, first_, all_volumes_, parcels_ ? &runs_ : nullptr};
    volumes.p.mapped = nullptr;
    volumes.p.out = out.data();
    decode_gzip(stream, volumes, n_threads);
    return out;
  }

  std::int64_t volume_bytes() const { return p_.volume_values * value_bytes(); }

 private:
  std::int64_t value_bytes() const {
    static const int kBytes[] = {1, 1, 2, 2, 4, 4, 8, 8, 4, 8};
    return kBytes[static_cast<int>(p_.type)];
  }
  Bytes room() const {
    return Bytes(static_cast<std::size_t>(p_.n_volumes * p_.out_stride * item_bytes_), 0xAB);
  }

  DecodeVolumes p_{};
  ParcelRuns runs_;
  bool parcels_;
  std::int64_t all_volumes_, first_, item_bytes_;
};

using Patches = std::vector<std::uint8_t>;

// A file of seek points in memory, and a path to it.
class IndexFile {
 public:
  IndexFile() { expect(descriptor >= 0, "no file in memory could be made"); }
  ~IndexFile() { close(descriptor); }
  IndexFile(const IndexFile&) = delete;
  IndexFile& operator=(const IndexFile&) = delete;

  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor); }

  // Changes bytes: patches of three bytes, a place and a value. The checksum is then made right again, so
  // that what it guards is reached.
  void patch(const Patches& patches) const {
    const off_t size = lseek(descriptor, 0, SEEK_END);
    std::string bytes(static_cast<std::size_t>(size), '\0');
    expect(pread(descriptor, &bytes[0], bytes.size(), 0) == size, "seek points could not be read");
    for (std::size_t i = 0; i + 3 <= patches.size(); i += 3)
      bytes[(patches[i] * 256u + patches[i + 1]) % bytes.size()] = static_cast<char>(patches[i + 2]);
    renew_check(bytes);
    expect(pwrite(descriptor, bytes.data(), bytes.size(), 0) == size, "seek points could not be written");
  }

  const int descriptor = memfd_create("seek_points", 0);

 private:
  // The layout of gzip_index.cpp: rows of 48 bytes, a footer of 80 with the number of rows and the checksum.
  static void renew_check(std::string& bytes) {
    constexpr std::size_t kRow = 48, kFooter = 80, kCountAt = 56, kCheckAt = 68;
    const std::size_t footer = bytes.size() - kFooter;
    std::uint64_t n_rows = 0;
    std::memcpy(&n_rows, &bytes[footer + kCountAt], sizeof n_rows);
    if (n_rows > footer / kRow) return;
    std::memset(&bytes[footer + kCheckAt], 0, 4);
    const std::size_t rows = footer - n_rows * kRow;
    const std::uint32_t check = crc32_of(0, &bytes[rows], bytes.size() - rows);
    std::memcpy(&bytes[footer + kCheckAt], &check, sizeof check);
  }
};

void decode_stream(Request& request, int descriptor, std::int64_t file_bytes, const nifti::Header& header,
                   const Options& options, const Patches& patches) {
  GzipStream stream(descriptor, file_bytes, header.offset, request.volume_bytes());
  const auto first = request.from_stream(stream, options.n_threads);
  expect(request.from_stream(stream, options.n_threads) == first,
         "values from a seek point differ from those of the first pass");
  stream.finish();
  const IndexFile kept;
  expect(stream.index.write(kept.descriptor, "key"), "seek points could not be written");
  if (options.hostile_index) kept.patch(patches);
  GzipStream again(descriptor, file_bytes, header.offset, request.volume_bytes());
  const bool loaded = again.index.load(kept.path(), "key");
  const auto second = request.from_stream(again, options.n_threads);
  if (options.hostile_index) return;
  expect(loaded, "seek points were not read back");
  expect(second == first, "values from kept seek points differ from those of the first pass");
}

// With a hostile index the file has patches for it in front: their length in a byte, then they.
Patches take_patches(const std::uint8_t*& file, std::size_t& n) {
  if (n == 0) return {};
  const std::size_t length = std::min<std::size_t>(file[0], n - 1);
  Patches patches(file + 1, file + 1 + length);
  file += 1 + length;
  n -= 1 + length;
  return patches;
}

void decode(const std::uint8_t* file, std::size_t n, const Options& options, const Patches& patches) {
  const auto file_bytes = static_cast<std::int64_t>(n);
  const int descriptor = descriptor_of(file, n);
  const bool compressed = n >= 2 && file[0] == 0x1F && file[1] == 0x8B;
  std::vector<unsigned char> start(file, file + std::min(n, nifti::kHeaderBytes));
  if (compressed) {
    start.assign(nifti::kHeaderBytes, 0);
    start.resize(static_cast<std::size_t>(
        inflate_start(descriptor, file_bytes, start.data(), static_cast<std::int64_t>(start.size()))));
    start.shrink_to_fit();
  }
  const nifti::Header header = nifti::parse_header(start.data(), start.size(), false);
  if (!compressed) nifti::check_size(header, file_bytes);
  VoxelType type;
  const std::int64_t shape[3] = {header.shape[0], header.shape[1], header.shape[2]};
  if (!voxel_type(header.type, &type) || shape[0] * shape[1] * shape[2] > kMostValues) return;
  const Mask mask(shape, options.mask_seed);
  if (mask.size.n_voxels == 0) return;
  Request request(header, type, mask, options);
  if (compressed) {
    decode_stream(request, descriptor, file_bytes, header, options, patches);
    return;
  }
  const std::vector<unsigned char> exact(file, file + n);  // the sanitizer sees its end
  expect(request.from_file(exact.data(), descriptor, 1) ==
             request.from_file(nullptr, descriptor, options.n_threads),
         "mapped and read values differ");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 8) return 0;
  const Options options = options_of(data);
  const std::uint8_t* file = data + 8;
  std::size_t n = size - 8;
  const auto patches = options.hostile_index ? take_patches(file, n) : Patches();
  try {
    decode(file, n, options, patches);
  } catch (const nifti::FormatError&) {
  } catch (const StreamError&) {
  }
  return 0;
}

#if !defined(NEUROKERN_LIBFUZZER)

#include <filesystem>
#include <fstream>
#include <iterator>

namespace {

using Bytes = std::vector<std::uint8_t>;

void mutate(Bytes& input, const std::vector<Bytes>& seeds, std::mt19937& generator) {
  const auto below = [&](std::size_t n) {
    return static_cast<std::size_t>(generator()) % std::max<std::size_t>(n, 1);
  };
  // Half of all changes in the header, where the fields are.
  const std::size_t at = below(generator() % 2 ? input.size() : std::min<std::size_t>(input.size(), 400));
  static const std::uint8_t kOdd[] = {0, 1, 0x7F, 0x80, 0xFF};
  switch (generator() % 6) {
    case 0:
      input[at] ^= static_cast<std::uint8_t>(1u << generator() % 8);
      break;
    case 1:
      input[at] = kOdd[generator() % sizeof kOdd];
      break;
    case 2:
      input[at] = static_cast<std::uint8_t>(generator());
      break;
    case 3:
      input.resize(std::max<std::size_t>(at, 8));
      break;
    case 4:
      input.insert(input.begin() + static_cast<std::ptrdiff_t>(at), below(16),
                   kOdd[generator() % sizeof kOdd]);
      break;
    default: {
      const Bytes& other = seeds[below(seeds.size())];
      const std::size_t from = below(other.size());
      input.resize(std::max<std::size_t>(at, 8));
      input.insert(input.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
    }
  }
}

}  // namespace

// decode_nifti_fuzz SEEDS ROUNDS: the seeds as they are, then as many mutations of them.
int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: %s SEEDS ROUNDS\n", argv[0]), 2;
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::vector<Bytes> seeds;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    LLVMFuzzerTestOneInput(seeds.back().data(), seeds.back().size());
  }
  expect(!seeds.empty(), "there are no seeds");
  std::mt19937 generator(1);
  for (long round = std::strtol(argv[2], nullptr, 10); round > 0; --round) {
    Bytes input = seeds[generator() % seeds.size()];
    for (unsigned n = 1 + generator() % 4; n > 0; --n) mutate(input, seeds, generator);
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf("decode_nifti_fuzz: %zu seeds and %s mutations of them did no harm\n", seeds.size(), argv[2]);
}

#endif
