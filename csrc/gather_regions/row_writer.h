// Writes a row of masked inputs and target flags, past the caches where the output is larger than they are.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/philox_block.h"
#include "gather_regions/gather_regions_body.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr std::int64_t kChunk = 1024;  // units written together: their buffers stay in the first-level cache

#if defined(__x86_64__)
inline void stream_vector(void* to, const void* from) {
#if defined(__AVX512F__)
  _mm512_stream_si512(static_cast<__m512i*>(to), _mm512_loadu_si512(from));
#elif defined(__AVX2__)
  _mm256_stream_si256(static_cast<__m256i*>(to), _mm256_loadu_si256(static_cast<const __m256i*>(from)));
#else
  _mm_stream_si128(static_cast<__m128i*>(to), _mm_loadu_si128(static_cast<const __m128i*>(from)));
#endif
}
inline void finish_streaming() { _mm_sfence(); }
#else
inline void stream_vector(void* to, const void* from) { __builtin_memcpy(to, from, kVectorBytes); }
inline void finish_streaming() {}
#endif

// Copy without reading the target's cache lines first.
inline void stream_copy(void* to, const void* from, std::size_t bytes) {
  auto* out = static_cast<unsigned char*>(to);
  const auto* in = static_cast<const unsigned char*>(from);
  std::size_t head = -reinterpret_cast<std::uintptr_t>(out) % kVectorBytes;
  if (head > bytes) head = bytes;
  __builtin_memcpy(out, in, head);
  std::size_t i = head;
  for (; i + kVectorBytes <= bytes; i += kVectorBytes) stream_vector(out + i, in + i);
  __builtin_memcpy(out + i, in + i, bytes - i);
}

// inputs[i] = fill where hidden, else x[i]; `inputs` may be x itself.
template <class Element>
inline void select_entries(const Element* x, const std::uint8_t* codes, Element fill, std::int64_t count,
                           Element* inputs) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < count; ++i) inputs[i] = codes[i] & kHiddenBit ? fill : x[i];
}

inline void select_targets(const std::uint8_t* codes, std::int64_t count, std::uint8_t* __restrict targets) {
  for (std::int64_t i = 0; i < count; ++i) targets[i] = codes[i] & kTargetBit;
}

template <class Element>
inline void write_masked(const Element* x, const std::uint8_t* codes, Element fill, std::int64_t count, Element* inputs,
                         std::uint8_t* targets, bool stream) {
  if (!stream) {
    select_entries(x, codes, fill, count, inputs);
    select_targets(codes, count, targets);
    return;
  }
  alignas(64) Element values[kChunk];
  alignas(64) std::uint8_t flags[kChunk];
  select_entries(x, codes, fill, count, values);
  select_targets(codes, count, flags);
  stream_copy(inputs, values, static_cast<std::size_t>(count) * sizeof(Element));
  stream_copy(targets, flags, static_cast<std::size_t>(count));
}

// A bin in which nothing is hidden.
template <class Element>
inline void write_shown(const Element* x, std::int64_t count, Element* inputs, std::uint8_t* targets, bool stream) {
  const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(Element);
  if (stream) {
    stream_copy(inputs, x, bytes);
  } else if (inputs != x) {
    __builtin_memcpy(inputs, x, bytes);
  }
  __builtin_memset(targets, 0, static_cast<std::size_t>(count));
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
