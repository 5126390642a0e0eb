// Runs every CPU kernel once on a small fixed input under callgrind, which counts its instructions.
// instruction_counts.py builds it from the same sources and flags as the package and reads the counts.
//
// Only the kernel is instrumented: inputs are made, and the kernel is run once, before counting starts.
// Inputs come from our own generator and lie on fixed alignments, so that the counts repeat.
#include <valgrind/callgrind.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "bin_spikes/bin_spikes.h"
#include "decode_nifti/decode_nifti.h"
#include "decode_nifti/decode_nifti_body.h"
#include "decode_nifti/mask_runs.h"
#include "gather_regions/gather_regions.h"
#include "solve_ridge/solve_ridge.h"
#include "solve_ridge/solve_ridge_body.h"

namespace {

using namespace neurokern;

struct Generator {  // splitmix64
  std::uint64_t state = 1;
  std::uint64_t next() {
    std::uint64_t z = (state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  std::int64_t below(std::int64_t n) {
    return static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(n));
  }
};

// Memory on a page's border, zeroed.
template <typename T>
struct Array {
  explicit Array(std::int64_t n) : size(n) {
    const std::size_t bytes = (static_cast<std::size_t>(n) * sizeof(T) + 4096) / 4096 * 4096;
    data = static_cast<T*>(std::aligned_alloc(4096, bytes));
    if (data == nullptr) std::abort();
    std::memset(static_cast<void*>(data), 0, bytes);
  }
  ~Array() { std::free(data); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  T& operator[](std::int64_t i) { return data[i]; }

  T* data;
  std::int64_t size;
};

template <typename Kernel>
void count_instructions(const std::string& name, Kernel&& kernel) {
  kernel();
  CALLGRIND_START_INSTRUMENTATION;
  kernel();
  CALLGRIND_DUMP_STATS_AT(name.c_str());
  CALLGRIND_STOP_INSTRUMENTATION;
}

// ---- bin_spikes: 500 units, 20 ms bins, 30 kHz

constexpr std::int64_t kSpikes = 400'000, kUnits = 500, kBins = 2400, kSamplesPerBin = 600;
constexpr std::int64_t kTrials = 40, kTrialBins = 100;
constexpr std::int64_t kRadius = 10;  // of a Gaussian of 50 ms

struct Session {
  Array<std::int64_t> samples{kSpikes};
  Array<double> times{kSpikes}, shuffled_times{kSpikes}, starts{kTrials};
  Array<std::int32_t> units{kSpikes}, shuffled_units{kSpikes};
  Array<std::int64_t> unit_map{kUnits};
  Array<double> train_times{kSpikes};
  Array<std::int64_t> train_ends{kUnits};
  Array<float> counts{kBins * kUnits + kTrials * kTrialBins * kUnits};
  Array<float> gaussian{kRadius + 1}, exponential{2};

  Session() {
    Generator random;
    const std::int64_t step = 2 * kBins * kSamplesPerBin / kSpikes;
    for (std::int64_t i = 0, sample = 0; i < kSpikes; ++i) {
      samples[i] = sample += random.below(step);
      times[i] = shuffled_times[i] = static_cast<double>(sample) / 30000;
      units[i] = shuffled_units[i] =
          static_cast<std::int32_t>(random.below(kUnits) * random.below(100) / 100);
    }
    for (std::int64_t i = kSpikes - 1; i > 0; --i) {
      const std::int64_t j = random.below(i + 1);
      std::swap(shuffled_times[i], shuffled_times[j]);
      std::swap(shuffled_units[i], shuffled_units[j]);
    }
    for (std::int64_t i = 0; i < kTrials; ++i)
      starts[i] = static_cast<double>(random.below((kBins - kTrialBins) * kSamplesPerBin)) / 30000;
    sort_into_trains();
    for (std::int64_t k = 0; k <= kRadius; ++k) gaussian[k] = 1.0f / static_cast<float>(2 + k * k);
    exponential[0] = 0.67f;
    exponential[1] = 1 - exponential[0];
    for (std::int64_t unit = 0; unit < kUnits; ++unit)
      unit_map[unit] = unit % 3 == 0 ? (unit * 77 % kUnits) / 3 : -1;
  }

  void sort_into_trains() {
    Array<std::int64_t> next(kUnits + 1);
    for (std::int64_t i = 0; i < kSpikes; ++i) ++next[units[i] + 1];
    for (std::int64_t unit = 0; unit < kUnits; ++unit) train_ends[unit] = next[unit + 1] += next[unit];
    for (std::int64_t i = 0; i < kSpikes; ++i) train_times[next[units[i]]++] = times[i];
  }

  BinSpikes problem(CountType type, std::int64_t largest_exact) const {
    BinSpikes p{};
    p.times = times.data;
    p.units = units.data;
    p.counts = counts.data;
    p.n_spikes = kSpikes;
    p.n_windows = 1;
    p.n_bins = kBins;
    p.n_units = kUnits;
    p.step = 50;
    p.step_is_rate = true;
    p.tolerance = 1e-9;
    p.width_numerator = kSamplesPerBin;
    p.width_denominator = 1;
    p.count_type = type;
    p.largest_exact = largest_exact;
    return p;
  }
  BinSpikes as_trains(BinSpikes p) const {
    p.times = train_times.data;
    p.units = nullptr;
    p.train_ends = train_ends.data;
    p.n_trains = kUnits;
    return p;
  }
  BinSpikes to_u8() const { return problem(CountType::u8, 255); }
  BinSpikes to_f32() const { return problem(CountType::f32, 1 << 24); }
};

using BinKernel = void (*)(const BinSpikes&, int, BinSpikesReport*);

void count_bin_spikes(const std::string& isa, BinKernel kernel, const Session& session) {
  const auto count = [&](const char* name, const BinSpikes& p) {
    count_instructions(isa + " bin_spikes " + name, [&] {
      BinSpikesReport report;
      kernel(p, 1, &report);
      if (report.out_of_memory != 0) std::abort();
    });
  };
  count("session uint8", session.to_u8());
  count("session float32", session.to_f32());
  BinSpikes p = session.to_f32();
  p.times = session.samples.data;
  p.integer_times = true;
  count("integer samples float32", p);

  p = session.to_f32();
  p.starts = session.starts.data;
  p.n_windows = kTrials;
  p.n_bins = kTrialBins;
  count("trials float32", p);
  p.order = SpikeOrder::claimed_sorted;
  count("trials claimed sorted float32", p);

  p = session.to_f32();
  p.times = session.shuffled_times.data;
  p.units = session.shuffled_units.data;
  count("unsorted float32", p);
  p = session.to_f32();
  p.unit_map = session.unit_map.data;
  p.n_ids = kUnits;
  p.n_units = kUnits / 3 + 1;
  count("subset float32", p);

  p = session.to_f32();
  p.smoothing = Smoothing::gaussian;
  p.weights = session.gaussian.data;
  p.n_weights = session.gaussian.size;
  count("Gaussian float32", p);
  p.smoothing = Smoothing::exponential;
  p.weights = session.exponential.data;
  p.n_weights = session.exponential.size;
  count("exponential float32", p);
  count("trains uint8", session.as_trains(session.to_u8()));
  count("trains float32", session.as_trains(session.to_f32()));
}

// ---- mask_regions: 8 samples of 100 bins of 800 units, 20 regions

constexpr std::int64_t kSamples = 8, kMaskBins = 100, kMaskUnits = 800, kRegions = 20;
const char* const kSchemeNames[kMaskSchemes] = {"temporal",     "causal",       "neuron",
                                                "intra-region", "inter-region", "random"};

struct Batch {
  Array<float> x{kSamples * kMaskBins * kMaskUnits}, inputs{x.size};
  Array<std::uint8_t> target_mask{x.size}, unit_codes{kSamples * kMaskUnits},
      bin_states{kSamples * kMaskBins};
  Array<std::int64_t> region{kSamples}, regions{kMaskUnits};

  Batch() {
    Generator random;
    for (std::int64_t i = 0; i < x.size; ++i) x[i] = static_cast<float>(random.below(5));
    for (std::int64_t unit = 0; unit < kMaskUnits; ++unit) regions[unit] = unit * kRegions / kMaskUnits;
  }

  MaskRegions problem(int scheme, int replacement) const {
    MaskRegions p{};
    p.x = x.data;
    p.inputs = inputs.data;
    p.target_mask = target_mask.data;
    p.region = region.data;
    p.regions = regions.data;
    p.unit_codes = unit_codes.data;
    p.bin_states = bin_states.data;
    p.n_samples = kSamples;
    p.n_bins = kMaskBins;
    p.n_units = kMaskUnits;
    p.x_stride_bin = p.inputs_stride_bin = kMaskUnits;
    p.x_stride_sample = p.inputs_stride_sample = kMaskBins * kMaskUnits;
    p.element_size = 4;
    p.scheme = scheme;
    for (std::uint64_t& threshold : p.thresholds) threshold = 0x4CCCCCCC;  // 0.3
    p.forced_region = -1;
    p.span = 1;
    p.replacement = replacement;
    return p;
  }
};

using MaskKernel = void (*)(const MaskRegions&, int);

void count_mask_regions(const std::string& isa, MaskKernel kernel, const Batch& batch) {
  for (const int replacement : {kFill, kBertRandom}) {
    for (int scheme = 0; scheme < kMaskSchemes; ++scheme) {
      if (scheme == kCausal) continue;  // the same work as temporal
      const MaskRegions p = batch.problem(scheme, replacement);
      const std::string name =
          std::string(kSchemeNames[scheme]) + (replacement == kFill ? " zero" : " random");
      count_instructions(isa + " mask_regions " + name, [&] { kernel(p, 1); });
    }
  }
}

using PackKernel = void (*)(const PackTargets&, int);

void count_packing(const std::string& isa, PackKernel count, PackKernel write, const Batch& batch) {
  Array<std::int64_t> index(batch.x.size);
  Array<std::int32_t> cu_seqlens(kSamples + 1);
  for (const int scheme : {kTemporal, kNeuron, kRandom}) {
    isa_v2::mask_regions_cpu(batch.problem(scheme, kFill), 1);
    PackTargets p{};
    p.target_mask = batch.target_mask.data;
    p.index = index.data;
    p.cu_seqlens = cu_seqlens.data;
    p.n_samples = kSamples;
    p.sample_cells = kMaskBins * kMaskUnits;
    p.capacity = index.size;
    count_instructions(isa + " pack targets " + kSchemeNames[scheme], [&] {
      count(p, 1);
      write(p, 1);
    });
  }
}

// ---- decode_nifti: 48 x 40 x 30 voxels, about half of them in a mask without holes, 20 volumes, 60 parcels

constexpr std::int64_t kShape[3] = {48, 40, 30}, kVolumeValues = 48 * 40 * 30, kVolumes = 20, kParcels = 60;

struct Image {
  Array<unsigned char> bytes{kVolumes * kVolumeValues * 4 + 64};
  Array<unsigned char> mask{kVolumeValues};
  Array<std::int64_t> run_starts{kVolumeValues}, run_lengths{kVolumeValues};
  Array<std::int32_t> order{kVolumeValues}, parcel_lengths{kVolumeValues}, parcels{kVolumeValues},
      parcel_voxels{kVolumeValues};
  Array<double> parcel_sizes{kParcels};
  Array<float> out{kVolumes * kVolumeValues}, basis{4 * kVolumes};
  MaskSize size{};
  std::int64_t n_parcel_runs = 0;

  Image() {
    Generator random;
    // Floats between 1 and 2; as integers of 16 bits any.
    for (std::int64_t i = 0; i < kVolumes * kVolumeValues; ++i) {
      const auto bits = static_cast<std::uint32_t>(0x3F800000 + random.below(1 << 23));
      std::memcpy(bytes.data + 4 * i, &bits, sizeof bits);
    }
    for (std::int64_t x = 0; x < kShape[0]; ++x)
      for (std::int64_t y = 0; y < kShape[1]; ++y)
        for (std::int64_t z = 0; z < kShape[2]; ++z) {
          const std::int64_t dx = 2 * x - 47, dy = 2 * y - 39, dz = 2 * z - 29;
          mask[(x * kShape[1] + y) * kShape[2] + z] =
              dx * dx * 1600 * 900 + dy * dy * 2304 * 900 + dz * dz * 2304 * 1600 < 2304LL * 1600 * 900;
        }
    size = measure_mask(mask.data, kShape);
    index_mask(mask.data, kShape, run_starts.data, run_lengths.data, order.data);
    make_parcels(random);
    for (std::int64_t i = 0; i < basis.size; ++i) basis[i] = static_cast<float>(random.below(100)) / 1000;
  }

  void make_parcels(Generator& random) {
    for (std::int64_t done = 0; done < size.n_voxels; ++n_parcel_runs) {
      const std::int64_t most = size.n_voxels - done, n = 1 + random.below(9) % most;
      parcel_lengths[n_parcel_runs] = static_cast<std::int32_t>(n);
      parcels[n_parcel_runs] = static_cast<std::int32_t>(random.below(kParcels));
      parcel_sizes[parcels[n_parcel_runs]] += static_cast<double>(n);
      done += n;
    }
    std::int64_t next = 0;
    for (std::int64_t parcel = 0; parcel < kParcels; ++parcel)
      for (std::int64_t run = 0, at = 0; run < n_parcel_runs; at += parcel_lengths[run++])
        for (std::int64_t i = 0; i < parcel_lengths[run] && parcels[run] == parcel; ++i)
          parcel_voxels[next++] = static_cast<std::int32_t>(at + i);
  }

  DecodeVolumes volumes(VoxelType type, bool swapped) const {
    DecodeVolumes p{};
    p.mapped = bytes.data;
    p.volume_values = kVolumeValues;
    p.n_volumes = kVolumes;
    p.type = type;
    p.swapped = swapped;
    p.slope = 0.25;
    p.inter = 3;
    p.run_starts = run_starts.data;
    p.run_lengths = run_lengths.data;
    p.n_runs = size.n_runs;
    p.n_voxels = size.n_voxels;
    p.order = order.data;
    p.out = out.data;
    p.out_stride = size.n_voxels;
    p.decoded = DecodedType::f32;
    return p;
  }
};

using DecodeKernel = DecodeStatus (*)(const DecodeVolumes&, int);
using ParcelKernel = DecodeStatus (*)(const DecodeVolumes&, const ParcelRuns&, int);
using CleanKernel = DecodeStatus (*)(const CleanColumns&, int);

void count_decoding(const std::string& isa, DecodeKernel decode, ParcelKernel reduce, CleanKernel clean,
                    const Image& image) {
  const auto check = [](DecodeStatus status) {
    if (status != DecodeStatus::ok) std::abort();
  };
  const std::string name = isa + " decode_nifti ";
  const struct {
    const char* name;
    VoxelType type;
    bool swapped;
  } kinds[] = {{"int16", VoxelType::i16, false},
               {"int16 big-endian", VoxelType::i16, true},
               {"float32", VoxelType::f32, false},
               {"uint8", VoxelType::u8, false}};
  for (const auto& kind : kinds) {
    DecodeVolumes p = image.volumes(kind.type, kind.swapped);
    count_instructions(name + kind.name, [&] { check(decode(p, 1)); });
    p.out_stride = kParcels;
    const ParcelRuns parcels{image.parcel_lengths.data, image.parcels.data, image.parcel_sizes.data,
                             image.n_parcel_runs,       kParcels,           image.parcel_voxels.data};
    count_instructions(name + "parcels " + kind.name, [&] { check(reduce(p, parcels, 1)); });
  }
  const CleanColumns columns{
      image.out.data, image.basis.data, kVolumes, image.size.n_voxels, image.size.n_voxels, 4, true};
  count_instructions(name + "clean", [&] { check(clean(columns, 1)); });
}

using GatherKernel = void (*)(const GatherWindows&, int);
using FitKernel = void (*)(const FitColumns&, int);

// A window of packed int16, scaled; cleaned by 6 trends; and summed for the fit of these.
void count_packed(const std::string& isa, GatherKernel gather, FitKernel fit, const Image& image) {
  constexpr std::int64_t kTrends = 6;
  const std::int64_t n = image.size.n_voxels;
  const Array<float> coefficients((kTrends + 2) * n), rows(kTrends * kVolumes);
  const Array<double> basis(kTrends * kVolumes), sums(kTrends * n), squares(n);
  StoredRows run{};
  run.raw = image.bytes.data;
  run.raw_stride = run.n_columns = n;
  run.type = VoxelType::i16;
  run.slope = 0.25;
  run.inter = 3;
  const RunWindow window{&run, 0, kVolumes, 0, 0, image.out.data};
  const std::int64_t groups[] = {0, 1};
  const GatherWindows p{&window, groups, 1, n, n, DecodedType::f32};
  const std::string name = isa + " decode_nifti packed ";
  count_instructions(name + "int16", [&] { gather(p, 1); });
  run.origin = coefficients.data;
  run.factor = run.origin + n;
  run.coefficients = run.factor + n;
  run.basis = rows.data;
  run.n_basis = kTrends;
  count_instructions(name + "int16, cleaned", [&] { gather(p, 1); });
  const FitColumns columns{image.out.data, n,          kVolumes,  n,           basis.data,
                           kTrends,        run.origin, sums.data, squares.data};
  count_instructions(name + "fit", [&] { fit(columns, 1); });
}

// ---- solve_ridge

// Episodes of `n_samples` in 128 features with 4 targets, 16 penalties to choose from.
struct Episodes {
  Episodes(std::int64_t n_problems, std::int64_t n_samples)
      : X(n_problems * n_samples * 128),
        Y(n_problems * n_samples * 4),
        grad_x(X.size),
        grad_y(Y.size),
        weights(n_problems * 512),
        grad_weights(n_problems * 512),
        intercept(n_problems * 4),
        dual(Y.size),
        alphas(n_problems * 16),
        scores(n_problems * 64),
        grad_alphas(n_problems * 4),
        choice(n_problems * 4) {
    Generator random;
    for (std::int64_t i = 0; i < X.size; ++i) X[i] = static_cast<float>(random.below(2001) - 1000) / 500;
    for (std::int64_t i = 0; i < Y.size; ++i) Y[i] = X[i * 32] + static_cast<float>(random.below(1001)) / 500;
    for (std::int64_t i = 0; i < grad_weights.size; ++i) grad_weights[i] = X[i % X.size];
    for (std::int64_t i = 0; i < alphas.size; ++i) alphas[i] = i % 16 == 0 ? 0.01 : 2.5 * alphas[i - 1];
    batch.X = X.data;
    batch.Y = Y.data;
    batch.alphas = alphas.data;
    batch.weights = weights.data;
    batch.intercept = intercept.data;
    batch.dual = dual.data;
    batch.choice = choice.data;
    batch.scores = scores.data;
    batch.n_bad = &n_bad;
    batch.n_problems = n_problems;
    batch.n_samples = n_samples;
    batch.n_features = 128;
    batch.n_targets = 4;
    batch.n_alphas = 16;
    batch.fit_intercept = true;
    scratch = std::make_unique<Array<double>>(room_of(batch).total);
    batch.scratch = scratch->data;
  }
  RidgeGradient gradient() const {
    return {batch, grad_weights.data, intercept.data, grad_x.data, grad_y.data, grad_alphas.data};
  }

  Array<float> X, Y, grad_x, grad_y, weights, grad_weights, intercept, dual;
  Array<double> alphas, scores, grad_alphas;
  Array<std::int64_t> choice;
  std::unique_ptr<Array<double>> scratch;
  std::int64_t n_bad = 0;
  RidgeBatch batch{};
};

// 30 parts of the predictions of 16 targets for 200 samples, and 10 penalties.
template <typename Add>
void count_ridge_sums(const std::string& isa, Add add) {
  Generator random;
  Array<float> parts(16 * 30 * 200), mix(30 * 10), truth(16 * 200);
  for (std::int64_t i = 0; i < parts.size; ++i)
    parts[i] = static_cast<float>(random.below(2001) - 1000) / 500;
  for (std::int64_t i = 0; i < mix.size; ++i) mix[i] = parts[i];
  for (std::int64_t i = 0; i < truth.size; ++i) truth[i] = parts[i + mix.size];
  Array<double> sums(16 * 66);
  RidgeSums p{};
  p.parts = parts.data;
  p.mix = mix.data;
  p.truth = truth.data;
  p.sums = sums.data;
  p.n_targets = 16;
  p.n_parts = 30;
  p.n_samples = 200;
  p.n_penalties = 10;
  Array<float> scratch(sums_room(p));
  p.scratch = scratch.data;
  count_instructions(isa + " solve_ridge sums, errors", [&] { add(p, 1, 1); });
  p.pairs = true;
  count_instructions(isa + " solve_ridge sums, pairs", [&] { add(p, 1, 1); });
}

template <typename Solve, typename Differentiate>
void count_ridge(const std::string& isa, Solve solve, Differentiate differentiate) {
  for (const std::int64_t n_samples : {5, 16, 64}) {
    const Episodes episodes(64 / n_samples, n_samples);
    const std::string name = isa + " solve_ridge batched, " + std::to_string(n_samples) + " samples";
    count_instructions(name, [&] { solve(episodes.batch, 1, 1); });
    count_instructions(name + ", gradient", [&] { differentiate(episodes.gradient(), 1, 1); });
  }
}

}  // namespace

int main() {
  const Session session;
  const Batch batch;
  const Image image;
  count_bin_spikes("v2", isa_v2::bin_spikes_cpu, session);
  count_bin_spikes("v3", isa_v3::bin_spikes_cpu, session);
  count_mask_regions("v2", isa_v2::mask_regions_cpu, batch);
  count_mask_regions("v3", isa_v3::mask_regions_cpu, batch);
  count_packing("v2", isa_v2::count_targets_cpu, isa_v2::write_targets_cpu, batch);
  count_packing("v3", isa_v3::count_targets_cpu, isa_v3::write_targets_cpu, batch);
  count_decoding("v2", isa_v2::decode_volumes_cpu, isa_v2::decode_parcels_cpu, isa_v2::clean_columns_cpu,
                 image);
  count_decoding("v3", isa_v3::decode_volumes_cpu, isa_v3::decode_parcels_cpu, isa_v3::clean_columns_cpu,
                 image);
  count_packed("v2", isa_v2::gather_windows_cpu, isa_v2::fit_columns_cpu, image);
  count_packed("v3", isa_v3::gather_windows_cpu, isa_v3::fit_columns_cpu, image);
  count_ridge("v2", isa_v2::solve_ridge_cpu, isa_v2::solve_ridge_backward_cpu);
  count_ridge("v3", isa_v3::solve_ridge_cpu, isa_v3::solve_ridge_backward_cpu);
  count_ridge_sums("v2", isa_v2::ridge_sums_cpu);
  count_ridge_sums("v3", isa_v3::ridge_sums_cpu);
  return 0;
}
