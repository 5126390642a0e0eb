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

// Bytes of each volume that are read at once: with those of the others they stay in L2.
constexpr std::int64_t kSlabBytes = 48 << 10;
constexpr std::int64_t kSlackBytes = 64;  // that may be read or written beyond a run's end

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

  // Volumes volume, volume + 1, ...; beyond the last one the last again.
  DecodeStatus weave(const DecodeVolumes& p, std::int64_t volume) {
    std::int64_t offsets[kVolumes];
    for (int k = 0; k < kVolumes; ++k) {
      const std::int64_t v = volume + k < p.n_volumes ? volume + k : p.n_volumes - 1;
      offsets[k] = p.offset + v * p.volume_values * kBytes;
    }
    return p.mapped != nullptr ? weave_mapped(p, offsets) : weave_read(p, offsets);
  }

 private:
  DecodeStatus weave_mapped(const DecodeVolumes& p, const std::int64_t (&offsets)[kVolumes]) {
    Volumes volumes;
    for (int k = 0; k < kVolumes; ++k) volumes[k] = p.mapped + offsets[k];
    Element* to = elements;
    for (std::int64_t run = 0; run < p.n_runs; ++run) {
      const std::int64_t first = p.run_starts[run], count = p.run_lengths[run];
      // Whole vectors must not reach beyond the file's end.
      if (first + count + L::kValues <= p.volume_values) {
        weave_run(volumes, first, count, to);
      } else {
        weave_exactly(volumes, first, count, to);
      }
      to += count;
    }
    return DecodeStatus::ok;
  }

  // Slab after slab: the same stretch of every volume, from a run's first voxel on.
  DecodeStatus weave_read(const DecodeVolumes& p, const std::int64_t (&offsets)[kVolumes]) {
    constexpr std::int64_t kSlabValues = kSlabBytes / kBytes;
    const std::int64_t end = p.run_starts[p.n_runs - 1] + p.run_lengths[p.n_runs - 1];
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
        const std::int64_t run_end = p.run_starts[run] + p.run_lengths[run];
        const std::int64_t count = (run_end < stop ? run_end : stop) - at;
        weave_run(volumes, at - first, count, to);
        to += count;
        done += count;
        if (at + count == run_end) ++run, done = 0;
      }
    }
    return DecodeStatus::ok;
  }

  // Whole vectors at a time: up to one vector of values more is read, one tile of elements more written.
  static inline __attribute__((always_inline)) void weave_run(const Volumes& volumes, std::int64_t first,
                                                              std::int64_t count, Element* to) {
    if constexpr (kVolumes == 1) {
      memcpy(to, volumes[0] + first * kBytes, static_cast<std::size_t>(count * kBytes));
    } else {
      for (std::int64_t i = 0; i < count; i += L::kValues) {
        typename L::Vector tile[kVolumes];
        for (int k = 0; k < kVolumes; ++k)
          memcpy(&tile[k], volumes[k] + (first + i) * kBytes, kRegisterBytes);
        shuffle<log2_of(kVolumes)>(tile);
        memcpy(to + i, tile, sizeof tile);
      }
    }
  }

  static void weave_exactly(const Volumes& volumes, std::int64_t first, std::int64_t count, Element* to) {
    for (std::int64_t i = 0; i < count; ++i)
      for (int k = 0; k < kVolumes; ++k)
        memcpy(reinterpret_cast<unsigned char*>(to + i) + k * kBytes, volumes[k] + (first + i) * kBytes,
               kBytes);
  }
};

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
