// Random problems for the CPU kernel of bin_spikes under AddressSanitizer and UndefinedBehaviorSanitizer:
// arrays of exactly the size that is promised, odd times and ids, false claims of order; counts against the
// rule, spike by spike. Prints what went wrong and exits with 1.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "bin_spikes/bin_spikes_cpu.cpp"
#include "common/huge_pages.cpp"

namespace neurokern {
void parallel_for(std::int64_t n_tasks, int, Task task, void* context) {
  for (std::int64_t i = n_tasks - 1; i >= 0; --i) task(context, i);
}
}  // namespace neurokern

namespace {

using namespace neurokern;
std::mt19937_64 generator(1);

std::int64_t draw(std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(generator);
}

// Without spare capacity, so that one element too far is an error.
template <typename T>
std::unique_ptr<T[]> exact(const std::vector<T>& values) {
  std::unique_ptr<T[]> copy(new T[values.size()]);
  std::copy(values.begin(), values.end(), copy.get());
  return copy;
}

template <typename T>
T read(const unsigned char* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

double odd_time(double) {
  const double odd[] = {std::nan(""), INFINITY, -INFINITY, -0.0, 1e300, -1e300, 5e-324};
  return odd[draw(0, 6)];
}
std::int64_t odd_time(std::int64_t) {
  const std::int64_t odd[] = {INT64_MIN, INT64_MAX, -1, 0, std::int64_t{1} << 40};
  return odd[draw(0, 4)];
}

// Sometimes smoothing, with weights of 1 / 2^k so that sums are exact in any order.
std::unique_ptr<float[]> draw_smoothing(BinSpikes& p) {
  p.smoothing = static_cast<Smoothing>(draw(0, 5) < 3 ? 0 : draw(1, 2));
  std::vector<float> weights(p.smoothing == Smoothing::gaussian ? static_cast<std::size_t>(draw(1, 30)) : 2);
  for (float& weight : weights) weight = 1.0f / static_cast<float>(1 << draw(0, 3));
  auto copy = exact(weights);
  p.weights = copy.get();
  p.n_weights = static_cast<std::int64_t>(weights.size());
  if (p.smoothing != Smoothing::none) {
    p.count_type = draw(0, 1) ? CountType::f32 : CountType::f64;
    p.largest_exact = 1 << 24;
    p.n_units %= 150;  // smoothing by the rule takes long
  }
  return copy;
}

// The rule of one unit's column, `stride` apart; x holds its counts.
std::vector<float> smooth_column(const BinSpikes& p, const std::int64_t* x, std::int64_t stride) {
  const auto at = [&](std::int64_t b) {
    return b < 0 || b >= p.n_bins ? 0.0f : static_cast<float>(std::min(x[b * stride], p.largest_exact));
  };
  std::vector<float> y;
  y.reserve(static_cast<std::size_t>(p.n_bins));
  for (std::int64_t b = 0; b < p.n_bins; ++b) {
    if (p.smoothing == Smoothing::exponential) {
      y.push_back(smooth_step(p.weights[0], p.weights[1], y.empty() ? 0 : y.back(), at(b)));
      continue;
    }
    y.push_back(p.smoothing == Smoothing::none ? at(b) : p.weights[0] * at(b));
    for (std::int64_t k = 1; p.smoothing == Smoothing::gaussian && k < p.n_weights; ++k)
      y.back() = smooth_tap(y.back(), p.weights[k], at(b - k), at(b + k));
  }
  return y;
}

double element(const BinSpikes& p, const unsigned char* from) {
  if (p.count_type == CountType::f64) return read<double>(from);
  if (p.count_type == CountType::f32) return static_cast<double>(read<float>(from));
  if (p.count_type == CountType::u8) return *from;
  if (p.count_type == CountType::i32) return read<std::int32_t>(from);
  return read<std::uint16_t>(from);
}

template <typename T, typename U>
void try_one(int round) {
  BinSpikes p{};
  p.integer_times = std::is_same_v<T, std::int64_t>;
  p.wide_units = sizeof(U) == 8;
  p.n_spikes = draw(0, 1) ? draw(0, 40) : draw(0, 900);
  if (draw(0, 200) == 0) p.n_spikes = draw(60000, 150000);  // more than 16-bit counters can take
  p.n_units = draw(0, 3) ? draw(1, 60) : draw(0, 5000);
  p.n_bins = draw(1, 80);
  p.n_windows = draw(0, 1) ? 1 : draw(1, 5);
  const double rates[] = {50, 1000, 0.5, 60};
  p.step = rates[draw(0, 3)];
  p.step_is_rate = draw(0, 1) && p.step > 1;
  p.start = static_cast<double>(draw(-3, 3)) / 7;
  p.tolerance = draw(0, 1) ? 1e-9 : 0;
  p.first_sample = draw(-50, 50);
  p.width_numerator = draw(1, 900);
  p.width_denominator = draw(0, 1) ? 1 : draw(1, 70);
  p.closed_last = draw(0, 4) == 0;
  p.count_type = static_cast<CountType>(draw(0, 3));
  const std::int64_t limits[] = {255, 32767, 65535, INT32_MAX};
  p.largest_exact = limits[static_cast<int>(p.count_type)];
  const auto weights = draw_smoothing(p);
  const double step = p.step_is_rate ? 1 / p.step : p.step;
  const double length = static_cast<double>(p.n_bins) * step;
  const std::int64_t samples = p.n_bins * p.width_numerator / p.width_denominator + 1;

  std::vector<T> times(static_cast<std::size_t>(p.n_spikes)), starts(static_cast<std::size_t>(p.n_windows)),
      edges;
  std::vector<U> units(times.size());
  const auto any_time = [&](double slack) {
    const double part = std::uniform_real_distribution<double>(-slack, 1 + slack)(generator);
    if (p.integer_times)
      return static_cast<T>(p.first_sample + static_cast<std::int64_t>(part * static_cast<double>(samples)));
    const double t = p.start + part * length;
    return static_cast<T>(draw(0, 3) ? t : p.start + std::floor(part * static_cast<double>(p.n_bins)) * step);
  };
  for (T& t : times) t = any_time(0.2);
  for (T& t : starts) t = any_time(0.5);
  for (U& u : units)
    u = static_cast<U>(draw(0, 20) ? draw(0, p.n_units)
                                   : draw(std::numeric_limits<U>::min(), std::numeric_limits<U>::max()));
  const int order = static_cast<int>(draw(0, 3));
  if (order > 0) std::sort(times.begin(), times.end());
  if (order > 1 && p.n_spikes > 1)
    std::swap(times[static_cast<std::size_t>(draw(0, p.n_spikes - 1))], times[0]);
  if (order == 3)
    for (int i = 0; i < 3 && p.n_spikes > 0; ++i)
      times[static_cast<std::size_t>(draw(0, p.n_spikes - 1))] = odd_time(T{});
  const bool sorted = std::is_sorted(times.begin(), times.end(), [](T a, T b) { return !(a >= b); });
  p.order = static_cast<SpikeOrder>(draw(0, 2));

  // Sometimes trains, one after the other, in place of ids: sorted, or as they are.
  std::vector<std::int64_t> ends;
  if (draw(0, 3) == 0) ends.resize(static_cast<std::size_t>(draw(1, 70)));
  for (std::int64_t& end : ends) end = draw(0, p.n_spikes);
  std::sort(ends.begin(), ends.end());
  if (!ends.empty()) ends.back() = p.n_spikes;
  bool trains_sorted = true;
  for (std::size_t u = 0, first = 0; u < ends.size(); first = static_cast<std::size_t>(ends[u++])) {
    const auto from = times.begin() + static_cast<std::ptrdiff_t>(first), to = times.begin() + ends[u];
    if (draw(0, 9) != 0) std::sort(from, to, [](T a, T b) { return a < b || (a == a && b != b); });
    trains_sorted &= std::is_sorted(from, to, [](T a, T b) { return !(a >= b); });
    for (auto i = first; i < static_cast<std::size_t>(ends[u]); ++i) units[i] = static_cast<U>(u);
  }

  std::vector<std::int64_t> map(static_cast<std::size_t>(draw(0, 70)));
  for (std::int64_t& column : map) column = draw(-1, p.n_units);
  const auto times_copy = exact(times), starts_copy = exact(starts);
  const auto units_copy = exact(units);
  const auto map_copy = exact(map);
  if (draw(0, 4) == 0) {
    for (std::int64_t i = 0; i <= p.n_bins; ++i) edges.push_back(any_time(0.1));
    std::sort(edges.begin(), edges.end());
    p.n_windows = 1;
  }
  const auto edges_copy = exact(edges);
  p.times = times_copy.get();
  const auto ends_copy = exact(ends);
  p.units = ends.empty() ? units_copy.get() : nullptr;
  p.train_ends = ends.empty() ? nullptr : ends_copy.get();
  p.n_trains = static_cast<std::int64_t>(ends.size());
  p.starts = edges.empty() && draw(0, 1) ? starts_copy.get() : nullptr;
  if (p.starts == nullptr) p.n_windows = 1;
  p.edges = edges.empty() ? nullptr : edges_copy.get();
  p.unit_map = draw(0, 1) ? map_copy.get() : nullptr;
  p.n_ids = static_cast<std::int64_t>(map.size());

  const std::size_t n_cells = static_cast<std::size_t>(p.n_windows * p.n_bins * p.n_units);
  const std::size_t size = static_cast<std::size_t>(element_size(p.count_type));
  const std::unique_ptr<unsigned char[]> counts(new unsigned char[n_cells * size]);
  std::fill(counts.get(), counts.get() + n_cells * size, static_cast<unsigned char>(0xAB));
  p.counts = counts.get();
  BinSpikesReport report;
  NEUROKERN_ISA::bin_spikes_cpu(p, static_cast<int>(draw(1, 4)), &report);
  if (p.order == SpikeOrder::claimed_sorted && !(ends.empty() ? sorted : trains_sorted))
    return;  // in bounds is all that is promised

  std::vector<std::int64_t> expected(n_cells);
  for (std::int64_t w = 0; w < p.n_windows; ++w) {
    for (std::int64_t i = 0; i < p.n_spikes; ++i) {
      const std::int64_t bin = bin_of(p, window_start(p, w, T{}), times[static_cast<std::size_t>(i)]);
      const std::int64_t column = column_of(p, static_cast<std::int64_t>(units[static_cast<std::size_t>(i)]));
      if (bin >= 0 && column >= 0)
        ++expected[static_cast<std::size_t>((w * p.n_bins + bin) * p.n_units + column)];
    }
  }
  const std::int64_t window_cells = p.n_bins * p.n_units;
  for (std::int64_t column = 0; column < p.n_windows * p.n_units; ++column) {
    const std::int64_t first = column / p.n_units * window_cells + column % p.n_units;
    const std::vector<float> right = smooth_column(p, expected.data() + first, p.n_units);
    for (std::int64_t b = 0; b < p.n_bins; ++b) {
      const std::int64_t cell = first + b * p.n_units;
      const double found = element(p, counts.get() + static_cast<std::size_t>(cell) * size);
      if (found == static_cast<double>(right[static_cast<std::size_t>(b)])) continue;
      std::printf("round %d: cell %lld holds %g, not %g (order %d, claim %d, smoothing %d, %lld windows)\n",
                  round, static_cast<long long>(cell), found,
                  static_cast<double>(right[static_cast<std::size_t>(b)]), order, static_cast<int>(p.order),
                  static_cast<int>(p.smoothing), static_cast<long long>(p.n_windows));
      std::exit(1);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 1000;
  for (int round = 0; round < rounds; ++round) {
    try_one<double, std::int32_t>(round);
    try_one<double, std::int64_t>(round);
    try_one<std::int64_t, std::int32_t>(round);
    try_one<std::int64_t, std::int64_t>(round);
  }
  return 0;
}
