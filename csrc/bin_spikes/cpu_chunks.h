// Where spikes go that are shared out: to one of many chains of chunks, each written from front to end.
// Part of bin_spikes_cpu.cpp, compiled once per instruction set: no STL, nothing with external linkage.
#pragma once

#include <cstdlib>

#include "bin_spikes/cpu_vectors.h"
#include "common/huge_pages.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

// Memory of which only as much is touched as is used; huge pages, since most of a cold run is page faults.
template <typename T>
T* allocate_large(int64_t n) {
  const int64_t bytes = (n * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
  void* memory = aligned_alloc(64, static_cast<size_t>(bytes));
  if (memory != nullptr) advise_huge_pages(memory, bytes);
  return static_cast<T*>(memory);
}

// Places in one or more arrays of `capacity()` items. A chain's place is loaded, written to and moved on: no
// branch that depends on the data, and lines of a chain are fetched before they are written.
struct Chains {
  static constexpr int64_t kChunk = 2048;  // items; a power of two
  int64_t n_chains = 0, n_chunks = 0;
  int64_t* next = nullptr;      // (n_chains,), place of the chain's next item
  int64_t* previous = nullptr;  // of each chunk, or -1

  static int64_t capacity(int64_t chains, int64_t n_items) {
    return (n_items / kChunk + chains + 1) * kChunk;
  }

  bool allocate(int64_t chains, int64_t n_items) {
    n_chains = chains;
    next = static_cast<int64_t*>(malloc(static_cast<size_t>(chains) * sizeof(int64_t)));
    const auto chunks = static_cast<size_t>(capacity(chains, n_items) / kChunk);
    previous = static_cast<int64_t*>(malloc(chunks * sizeof(int64_t)));
    if (next == nullptr || previous == nullptr) return false;
    for (int64_t chain = 0; chain < chains; ++chain) open_chunk(chain, -1);
    return true;
  }
  void release() {
    free(next);
    free(previous);
  }

  __attribute__((noinline)) void open_chunk(int64_t chain, int64_t before) {
    previous[n_chunks] = before;
    next[chain] = kChunk * n_chunks++;
  }
  // After an item was written at `place`, the chain's next.
  inline __attribute__((always_inline)) void advance(int64_t chain, int64_t place) {
    next[chain] = ++place;
    if (__builtin_expect(place % kChunk == 0, 0)) open_chunk(chain, place / kChunk - 1);
  }
  // The same if the item is kept; else the chain's next item overwrites it.
  inline __attribute__((always_inline)) void advance_if(bool kept, int64_t chain, int64_t place) {
    const int64_t then = place + kept;
    next[chain] = then;
    if (__builtin_expect(((place ^ then) & kChunk) != 0, 0)) open_chunk(chain, place / kChunk);
  }

  // Calls run(first, last) for all stretches of items of a chain.
  template <typename Run>
  void for_each(int64_t chain, const Run& run) const {
    int64_t chunk = next[chain] / kChunk, last = next[chain];
    for (; chunk >= 0; chunk = previous[chunk], last = (chunk + 1) * kChunk) run(chunk * kChunk, last);
  }
  int64_t length(int64_t chain) const {
    int64_t n = 0;
    for_each(chain, [&](int64_t first, int64_t last) { n += last - first; });
    return n;
  }
};

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
