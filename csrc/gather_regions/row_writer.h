// Writes a row of masked inputs and target flags, past the caches where the output is larger than they are.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/philox_block.h"
#include "gather_regions/gather_regions_body.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

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

template <bool kStream>
inline void store_vector(void* to, const void* from) {
  if constexpr (kStream) {
    stream_vector(to, from);
  } else {
    __builtin_memcpy(to, from, kVectorBytes);
  }
}

// Elements before the first that a streaming store can take.
template <class Element, bool kStream>
inline std::int64_t head_of(const Element* to, std::int64_t count) {
  if constexpr (!kStream) return 0;
  const std::int64_t head = static_cast<std::int64_t>(-reinterpret_cast<std::uintptr_t>(to) % kVectorBytes) /
                            static_cast<std::int64_t>(sizeof(Element));
  return head < count ? head : count;
}

// What hidden entries become: one value, or a row of them.
template <class Element>
struct OneValue {
  typedef Element Vector __attribute__((vector_size(kVectorBytes)));
  Element value;
  Element at(std::int64_t) const { return value; }
  Vector vector_at(std::int64_t) const { return Vector{} + value; }
};

template <class Element>
struct RowOfValues {
  typedef Element Vector __attribute__((vector_size(kVectorBytes)));
  const Element* values;
  Element at(std::int64_t i) const { return values[i]; }
  Vector vector_at(std::int64_t i) const {
    Vector loaded;
    __builtin_memcpy(&loaded, values + i, sizeof loaded);
    return loaded;
  }
};

// inputs[i] = fill.at(i) where hidden, else x[i]; `inputs` may be x itself.
template <class Element, bool kStream, class Fill>
inline void select_entries(const Element* x, const std::uint8_t* codes, Fill fill, std::int64_t count,
                           Element* inputs) {
  constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(Element));
  typedef Element Vector __attribute__((vector_size(kVectorBytes)));
  typedef std::int8_t Codes __attribute__((vector_size(kLanes)));
  const auto select = [&](std::int64_t i) { inputs[i] = codes[i] & kHiddenBit ? fill.at(i) : x[i]; };
  std::int64_t i = 0;
  for (const std::int64_t head = head_of<Element, kStream>(inputs, count); i < head; ++i) select(i);
  for (; i + kLanes <= count; i += kLanes) {
    Vector entries;
    Codes row;
    __builtin_memcpy(&entries, x + i, sizeof entries);
    __builtin_memcpy(&row, codes + i, sizeof row);
    const Vector hidden = __builtin_convertvector(row < 0, Vector);  // -1 widens to all ones
    entries = (entries & ~hidden) | (fill.vector_at(i) & hidden);
    store_vector<kStream>(inputs + i, &entries);
  }
  for (; i < count; ++i) select(i);
}

template <bool kStream>
inline void select_targets(const std::uint8_t* codes, std::int64_t count, std::uint8_t* targets) {
  typedef std::uint8_t Codes __attribute__((vector_size(kVectorBytes)));
  std::int64_t i = 0;
  for (const std::int64_t head = head_of<std::uint8_t, kStream>(targets, count); i < head; ++i)
    targets[i] = codes[i] & kTargetBit;
  for (; i + kVectorBytes <= count; i += kVectorBytes) {
    Codes row;
    __builtin_memcpy(&row, codes + i, sizeof row);
    row &= kTargetBit;
    store_vector<kStream>(targets + i, &row);
  }
  for (; i < count; ++i) targets[i] = codes[i] & kTargetBit;
}

// Copy; a streaming one does not read the target's cache lines first.
template <class Element, bool kStream>
inline void copy_entries(const Element* x, std::int64_t count, Element* inputs) {
  if constexpr (!kStream) {
    if (inputs != x) __builtin_memcpy(inputs, x, static_cast<std::size_t>(count) * sizeof(Element));
  } else {
    constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(Element));
    std::int64_t i = head_of<Element, kStream>(inputs, count);
    __builtin_memcpy(inputs, x, static_cast<std::size_t>(i) * sizeof(Element));
    for (; i + kLanes <= count; i += kLanes) stream_vector(inputs + i, x + i);
    __builtin_memcpy(inputs + i, x + i, static_cast<std::size_t>(count - i) * sizeof(Element));
  }
}

template <class Element, bool kStream>
inline void fill_entries(Element value, std::int64_t count, Element* out) {
  constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(Element));
  typedef Element Vector __attribute__((vector_size(kVectorBytes)));
  const Vector filled = Vector{} + value;
  std::int64_t i = 0;
  for (const std::int64_t head = head_of<Element, kStream>(out, count); i < head; ++i) out[i] = value;
  for (; i + kLanes <= count; i += kLanes) store_vector<kStream>(out + i, &filled);
  for (; i < count; ++i) out[i] = value;
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
