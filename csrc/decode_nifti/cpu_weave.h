// Weaves the mask's voxels of a few volumes into elements: one value of each volume, side by side.
// Part of decode_nifti_cpu.cpp, compiled once per instruction set: no STL, nothing with external linkage.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "common/huge_pages.h"
#include "decode_nifti/cpu_shuffle.h"
#include "decode_nifti/decode_nifti.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr std::int64_t kSlabsBytes = 192 << 10;  // read at once of all volumes together: they stay in L2
constexpr std::int64_t kSlackBytes = 256;        // that may be read or written beyond a run's end
// Tiles that are fetched early: runs are too short, and volumes too many, for the processor's prefetcher.
constexpr int kTilesAhead = 40;

inline DecodeStatus read_exactly(int descriptor, unsigned char* to, std::int64_t bytes, std::int64_t offset) {
  while (bytes > 0) {
    const ssize_t n = pread(descriptor, to, static_cast<std::size_t>(bytes), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return DecodeStatus::read_failed;
    if (n == 0) return DecodeStatus::cut_short;
    to += n, bytes -= n, offset += n;
  }
  return DecodeStatus::ok;
}

template <typename Bits, int kVolumes>
struct Weaver {
  using L = Layout<Bits, kVolumes>;
  using Element = typename L::Element;
  using Volumes = const unsigned char* [kVolumes];
  static constexpr std::int64_t kBytes = L::kBytes;
  static constexpr std::int64_t kSlabBytes = kSlabsBytes / kVolumes;

  Element* elements = nullptr;     // (n_voxels,) in file order
  unsigned char* slabs = nullptr;  // (kVolumes, slab), only without a mapping

  bool allocate(const DecodeVolumes& p) {
    const std::size_t bytes = static_cast<std::size_t>(p.n_voxels) * sizeof(Element) + 8 * kSlackBytes;
    elements = static_cast<Element*>(aligned_alloc(64, (bytes + 63) / 64 * 64));
    if (elements != nullptr) advise_huge_pages(elements, static_cast<std::int64_t>(bytes));
    if (p.mapped == nullptr)
      slabs = static_cast<unsigned char*>(aligned_alloc(64, kVolumes * (kSlabBytes + kSlackBytes)));
    return elements != nullptr && (p.mapped != nullptr || slabs != nullptr);
  }
  void release() {
    free(elements);
    free(slabs);
  }

  // Volumes volume, volume + 1, ...; beyond the last one the last again. In this machine's byte order.
  DecodeStatus weave(const DecodeVolumes& p, std::int64_t volume) {
    std::int64_t offsets[kVolumes];
    for (int k = 0; k < kVolumes; ++k) {
      const std::int64_t v = volume + k < p.n_volumes ? volume + k : p.n_volumes - 1;
      offsets[k] = p.offset + v * p.volume_values * kBytes;
    }
    if (p.mapped == nullptr) return p.swapped ? weave_read<true>(p, offsets) : weave_read<false>(p, offsets);
    p.swapped ? weave_mapped<true>(p, offsets) : weave_mapped<false>(p, offsets);
    return DecodeStatus::ok;
  }

 private:
  template <bool kSwapped>
  void weave_mapped(const DecodeVolumes& p, const std::int64_t (&offsets)[kVolumes]) {
    Volumes volumes;
    for (int k = 0; k < kVolumes; ++k) volumes[k] = p.mapped + offsets[k];
    // Whole vectors must not reach beyond the file's end; weave_runs looks at the run after its last.
    std::int64_t n_whole = p.n_runs - 1;
    while (n_whole > 0 && run_end(p, n_whole - 1) + L::kValues > p.volume_values) --n_whole;
    Element* to = weave_runs<kSwapped>(volumes, p.run_starts, p.run_lengths, n_whole, elements);
    for (std::int64_t run = n_whole; run < p.n_runs; ++run) {
      const std::int64_t first = p.run_starts[run], count = p.run_lengths[run];
      const bool whole = first + count + L::kValues <= p.volume_values;
      const std::int64_t in_vectors = whole ? count : count / L::kValues * L::kValues;
      weave_run<kSwapped>(volumes, first, in_vectors, to);
      weave_exactly<kSwapped>(volumes, first + in_vectors, count - in_vectors, to + in_vectors);
      to += count;
    }
  }

  static std::int64_t run_end(const DecodeVolumes& p, std::int64_t run) {
    return p.run_starts[run] + p.run_lengths[run];
  }

  // Slab after slab: the same stretch of every volume, from a run's first voxel on.
  template <bool kSwapped>
  DecodeStatus weave_read(const DecodeVolumes& p, const std::int64_t (&offsets)[kVolumes]) {
    constexpr std::int64_t kSlabValues = kSlabBytes / kBytes;
    const std::int64_t end = run_end(p, p.n_runs - 1);
    Volumes volumes;
    for (int k = 0; k < kVolumes; ++k) volumes[k] = slabs + k * (kSlabBytes + kSlackBytes);
    Element* to = elements;
    std::int64_t run = 0, done = 0;  // voxels of the run that are woven
    while (run < p.n_runs) {
      const std::int64_t first = p.run_starts[run] + done;
      const std::int64_t stop = first + kSlabValues < end ? first + kSlabValues : end;
      for (int k = 0; k < kVolumes; ++k) {
        const DecodeStatus status = read_exactly(p.descriptor, slabs + k * (kSlabBytes + kSlackBytes),
                                                 (stop - first) * kBytes, offsets[k] + first * kBytes);
        if (status != DecodeStatus::ok) return status;
      }
      while (run < p.n_runs && p.run_starts[run] + done < stop) {
        const std::int64_t at = p.run_starts[run] + done;
        const std::int64_t count = (run_end(p, run) < stop ? run_end(p, run) : stop) - at;
        weave_run<kSwapped>(volumes, at - first, count, to);
        to += count;
        done += count;
        if (at + count == run_end(p, run)) ++run, done = 0;
      }
    }
    return DecodeStatus::ok;
  }

  // Tile after tile of all runs, up to the first of run n_runs.
  struct Tiles {
    const std::int64_t *starts, *lengths;
    std::int64_t n_runs, run = 0, at = starts[0], left = lengths[0];

    inline __attribute__((always_inline)) void advance() {
      const bool ends = left <= L::kValues;
      run += ends && run < n_runs;
      at = ends ? starts[run] : at + L::kValues;
      left = ends ? lengths[run] : left - L::kValues;
    }
  };

  // All runs in one loop over tiles: where runs are short, an inner loop would end as no branch predictor
  // foresees. Reads run n_runs, too, and up to a vector of values more than the last run has.
  template <bool kSwapped>
  static Element* weave_runs(const Volumes& volumes, const std::int64_t* starts, const std::int64_t* lengths,
                             std::int64_t n_runs, Element* to) {
    if constexpr (kVolumes == 1) {
      for (std::int64_t run = 0; run < n_runs; to += lengths[run++])
        weave_run<kSwapped>(volumes, starts[run], lengths[run], to);
    } else {
      Tiles tile{starts, lengths, n_runs}, ahead{starts, lengths, n_runs};
      for (int i = 0; i < kTilesAhead; ++i) ahead.advance();
      while (tile.run < n_runs) {
        for (int k = 0; k < kVolumes; ++k) __builtin_prefetch(volumes[k] + ahead.at * kBytes);
        weave_tile<kSwapped>(volumes, tile.at, to);
        to += tile.left < L::kValues ? tile.left : L::kValues;
        tile.advance();
        ahead.advance();
      }
    }
    return to;
  }

  template <bool kSwapped>
  static inline __attribute__((always_inline)) void weave_tile(const Volumes& volumes, std::int64_t at,
                                                               Element* to) {
    typename L::Vector tile[kVolumes];
    for (int k = 0; k < kVolumes; ++k) {
      memcpy(&tile[k], volumes[k] + at * kBytes, kRegisterBytes);
      if constexpr (kSwapped) tile[k] = swap_bytes<kBytes>(tile[k]);
    }
    if constexpr (kVolumes > 1) shuffle<log2_of(kVolumes)>(tile);
    // One by one: GCC copies an array through memory, in parts other than those that it was stored in.
    for (int k = 0; k < kVolumes; ++k)
      memcpy(reinterpret_cast<unsigned char*>(to) + k * kRegisterBytes, &tile[k], kRegisterBytes);
  }

  // Whole vectors at a time: up to one vector of values more is read, one tile of elements more written.
  template <bool kSwapped>
  static void weave_run(const Volumes& volumes, std::int64_t first, std::int64_t count, Element* to) {
    if constexpr (kVolumes == 1 && !kSwapped) {
      memcpy(to, volumes[0] + first * kBytes, static_cast<std::size_t>(count * kBytes));
    } else {
      for (std::int64_t i = 0; i < count; i += L::kValues) {
        const std::int64_t ahead = (first + i) * kBytes + kTilesAhead * kRegisterBytes;
        for (int k = 0; k < kVolumes; ++k) __builtin_prefetch(volumes[k] + ahead);
        weave_tile<kSwapped>(volumes, first + i, to + i);
      }
    }
  }

  template <bool kSwapped>
  static void weave_exactly(const Volumes& volumes, std::int64_t first, std::int64_t count, Element* to) {
    for (std::int64_t i = 0; i < count; ++i)
      for (int k = 0; k < kVolumes; ++k) {
        unsigned char value[kBytes];
        memcpy(value, volumes[k] + (first + i) * kBytes, kBytes);
        for (std::int64_t byte = 0; byte < kBytes; ++byte)
          reinterpret_cast<unsigned char*>(to + i)[k * kBytes + byte] =
              value[kSwapped ? kBytes - 1 - byte : byte];
      }
  }
};

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
