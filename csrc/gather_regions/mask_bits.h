// Bytes of a mask, 64 at a time, as bits.
#pragma once

#include <cstdint>

#include "common/philox_block.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr int kMaskBlock = 64;

typedef std::uint8_t MaskBytes __attribute__((vector_size(kVectorBytes)));

NK_INLINE MaskBytes load_bytes(const std::uint8_t* from) {
  MaskBytes bytes;
  __builtin_memcpy(&bytes, from, sizeof bytes);
  return bytes;
}

NK_INLINE void store_bytes(std::uint8_t* to, MaskBytes bytes) { __builtin_memcpy(to, &bytes, sizeof bytes); }

// Bit i of 64: whether bytes[i] is not 0.
NK_INLINE std::uint64_t mask_bits(const std::uint8_t* bytes) {
#if defined(__AVX512BW__)
  const __m512i all = (__m512i)load_bytes(bytes);
  return _mm512_test_epi8_mask(all, all);
#elif defined(__SSE2__)
  std::uint64_t bits = 0;
  for (int k = 0; k < kMaskBlock; k += kVectorBytes) {
    const auto part = load_bytes(bytes + k) != 0;
#if defined(__AVX2__)
    bits |= std::uint64_t{static_cast<std::uint32_t>(_mm256_movemask_epi8((__m256i)part))} << k;
#else
    bits |= static_cast<std::uint64_t>(_mm_movemask_epi8((__m128i)part)) << k;
#endif
  }
  return bits;
#else
  std::uint64_t bits = 0;
  for (int i = 0; i < kMaskBlock; ++i) bits |= std::uint64_t{bytes[i] != 0} << i;
  return bits;
#endif
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
