#include "checker.h"

#include <dlfcn.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <new>

#include "order.h"
#include "runtime.h"

// Where the compiled module lies in memory, from the linker: its constants may be read.
extern "C" __attribute__((visibility("hidden"))) const char __ehdr_start, _end;

namespace cuda_emulation {
namespace {

// What is known of a granule of memory: 4 bytes, or 1 in arrays that are accessed by less.
struct Cell {
  std::uint32_t generation = 0;  // the launch, or for shared memory the block, that the rest is about
  std::uint32_t writer = 0;      // the instruction that wrote last, counted from the start of the module
  Stamp write, atomic, read;
};

// Zeros that take memory only where they are touched, however large the array.
struct CellMap {
  std::size_t bytes = 0;
  void operator()(Cell* cells) const { munmap(cells, bytes); }
};
using Cells = std::unique_ptr<Cell[], CellMap>;

Cells map_cells(std::size_t n) {
  const std::size_t bytes = n * sizeof(Cell);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return Cells(static_cast<Cell*>(memory), CellMap{bytes});
}

struct Memory {
  const unsigned char* first = nullptr;
  std::size_t bytes = 0;
  std::string name;
  int granule = 4;
  Cells cells;
  bool fresh = false;
  std::vector<bool> written;  // by byte, if fresh

  bool holds(const unsigned char* address) const { return address >= first && address < first + bytes; }
};

std::vector<Memory> arrays;  // of the caller
std::vector<Memory> shared;  // of this block, as shared_arrays()
std::uint32_t generation = 0, n_threads_per_block = 1;
Order order;

Memory memory_at(const unsigned char* first, std::size_t bytes, std::string name, bool fresh) {
  Memory memory;
  memory.first = first;
  memory.bytes = bytes;
  memory.name = std::move(name);
  memory.fresh = fresh;
  if (fresh) memory.written.assign(bytes, false);
  return memory;
}

const char* verb(Access access) {
  return access == Access::read ? "reads" : access == Access::write ? "writes" : "changes atomically";
}

std::string describe(Access access, std::size_t bytes, const void* caller) {
  return thread_name(current) + " " + verb(access) + " " + std::to_string(bytes) + " bytes, " +
         source_line(caller);
}

std::string place_in(const Memory& memory, const unsigned char* address) {
  return "byte " + std::to_string(address - memory.first) + " of " + memory.name + " of " +
         std::to_string(memory.bytes) + " bytes";
}

[[noreturn]] void fail_outside(Access access, const unsigned char* address, std::size_t bytes,
                               const void* caller) {
  std::string nearest = "no array";
  std::uintptr_t distance = ~std::uintptr_t{0};
  for (const auto* list : {&arrays, &shared}) {
    for (const Memory& memory : *list) {
      const auto at = reinterpret_cast<std::uintptr_t>(address),
                 first = reinterpret_cast<std::uintptr_t>(memory.first);
      const std::uintptr_t away = at < first ? first - at : at - first - memory.bytes + 1;
      if (away >= distance) continue;
      distance = away;
      nearest = place_in(memory, address);
    }
  }
  fail("out of bounds: " + describe(access, bytes, caller) + "; nearest is " + nearest);
}

[[noreturn]] void fail_race(Access access, const Memory& memory, const unsigned char* address,
                            std::size_t bytes, const void* caller, const Cell& cell, Stamp other,
                            const char* done) {
  const std::uint32_t thread = other.thread - 1;
  std::string text = "race: " + describe(access, bytes, caller) + "; block " +
                     std::to_string(thread / n_threads_per_block) + " thread " +
                     std::to_string(thread % n_threads_per_block) + " " + done + " " +
                     place_in(memory, address) + " with no barrier between";
  if (cell.writer != 0 && other.thread == cell.write.thread)
    text += ", " + source_line(&__ehdr_start + cell.writer);
  fail(text);
}

void make_cells(Memory& memory, int granule) {
  Cells cells = map_cells(memory.bytes / static_cast<std::size_t>(granule) + 1);
  if (memory.cells)  // from words to bytes: what was done to a word was done to its bytes
    for (std::size_t i = 0; i < memory.bytes; ++i) cells[i] = memory.cells[i / 4];
  memory.cells = std::move(cells);
  memory.granule = granule;
}

void check_cell(Access access, Memory& memory, const unsigned char* address, std::size_t bytes,
                const void* caller, std::size_t number) {
  Cell& cell = memory.cells[number];
  if (cell.generation != generation) {
    cell = Cell{};
    cell.generation = generation;
  }
  const auto race = [&](Stamp other, const char* done) {
    fail_race(access, memory, address, bytes, caller, cell, other, done);
  };
  if (!order.is_over(cell.write, current)) race(cell.write, "wrote");
  if (access != Access::atomic && !order.is_over(cell.atomic, current))
    race(cell.atomic, "atomically changed");
  if (access != Access::read && !order.is_over(cell.read, current)) race(cell.read, "read");
  // Of several accesses without an order the first is kept.
  Stamp& own = access == Access::read ? cell.read : access == Access::write ? cell.write : cell.atomic;
  if (order.is_over(own, current)) own = order.stamp(current);
  if (access == Access::write)
    cell.writer = static_cast<std::uint32_t>(static_cast<const char*>(caller) - &__ehdr_start);
}

void check_written(Access access, Memory& memory, const unsigned char* address, std::size_t bytes,
                   const void* caller) {
  const auto at = static_cast<std::size_t>(address - memory.first);
  for (std::size_t i = at; i < at + bytes; ++i) {
    if (access != Access::write && !memory.written[i])
      fail("uninitialised: " + describe(access, bytes, caller) + "; nothing was written to " +
           place_in(memory, memory.first + i));
    memory.written[i] = true;
  }
}

void check_in(Memory& memory, Access access, const unsigned char* address, std::size_t bytes,
              const void* caller) {
  const auto at = static_cast<std::size_t>(address - memory.first);
  if (bytes > memory.bytes - at) fail_outside(access, address, bytes, caller);
  if (memory.fresh) check_written(access, memory, address, bytes, caller);
  const bool in_words = (at | bytes) % 4 == 0;
  if (!memory.cells || (memory.granule == 4 && !in_words)) make_cells(memory, in_words ? 4 : 1);
  const auto granule = static_cast<std::size_t>(memory.granule);
  for (std::size_t i = at; i < at + bytes; i += granule)
    check_cell(access, memory, memory.first + i, bytes, caller, i / granule);
}

Memory* find(std::vector<Memory>& list, const unsigned char* address) {
  static std::size_t last = 0;  // most accesses are to the array of the one before
  if (last < list.size() && list[last].holds(address)) return &list[last];
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (!list[i].holds(address)) continue;
    last = i;
    return &list[i];
  }
  return nullptr;
}

}  // namespace

void add_array(std::uintptr_t address, std::size_t bytes, bool fresh) {
  if (bytes == 0) return;
  std::uintptr_t first = address, end = address + bytes;
  for (std::size_t i = 0; i < arrays.size();) {  // views of one array are one memory
    const auto other = reinterpret_cast<std::uintptr_t>(arrays[i].first);
    if (other >= end || other + arrays[i].bytes <= first) {
      ++i;
      continue;
    }
    first = std::min(first, other);
    end = std::max(end, other + arrays[i].bytes);
    fresh = fresh && arrays[i].fresh;
    arrays.erase(arrays.begin() + static_cast<std::ptrdiff_t>(i));
    i = 0;
  }
  arrays.push_back(memory_at(reinterpret_cast<const unsigned char*>(first), end - first, "an array", fresh));
}

void forget_arrays() { arrays.clear(); }

void start_launch_order(std::size_t threads_per_block) {
  ++generation;
  n_threads_per_block = static_cast<std::uint32_t>(threads_per_block);
}

void start_block_order(std::size_t number, std::size_t threads) {
  order.start_block(number, threads);
  shared.clear();
}

void order_block() { order.meet_block(); }
void order_lanes(unsigned first, unsigned mask) { order.meet_lanes(first, mask); }

void check_access(Access access, const void* where, std::size_t bytes, const void* caller) {
  if (!in_kernel || on_a_stack(where)) return;
  const auto* address = static_cast<const unsigned char*>(where);
  while (shared.size() < shared_arrays().size()) {
    const SharedArray& array = shared_arrays()[shared.size()];
    shared.push_back(memory_at(array.first, array.bytes, array.name, true));
  }
  Memory* memory = find(arrays, address);
  if (memory == nullptr) memory = find(shared, address);
  if (memory != nullptr) return check_in(*memory, access, address, bytes, caller);
  const auto* as_char = static_cast<const char*>(where);
  const bool constant = as_char >= &__ehdr_start && as_char < &_end && !in_shared_memory(where);
  if (!constant || access != Access::read) fail_outside(access, address, bytes, caller);
}

std::string source_line(const void* caller) {
  Dl_info module{};
  if (dladdr(caller, &module) == 0 || module.dli_fname == nullptr) return "?";
  const auto offset = static_cast<const char*>(caller) - static_cast<const char*>(module.dli_fbase) - 1;
  char command[1024];
  std::snprintf(command, sizeof command, "addr2line -e '%s' %#zx 2>/dev/null", module.dli_fname,
                static_cast<std::size_t>(offset));
  std::string line;
  if (FILE* output = popen(command, "r")) {
    char text[1024];
    if (std::fgets(text, sizeof text, output) != nullptr) line = text;
    pclose(output);
  }
  line = line.substr(0, line.find_first_of(" \n"));
  return line.empty() ? "?" : line.substr(line.find_last_of('/') + 1);
}

void atomic_access(void* address, std::size_t bytes, void* caller) {
  if (reinterpret_cast<std::uintptr_t>(address) % bytes != 0)
    fail("misaligned: " + describe(Access::atomic, bytes, caller));
  check_access(Access::atomic, address, bytes, caller);
}

}  // namespace cuda_emulation

// ---- what the compiler calls

using cuda_emulation::Access;

#define CUDA_EMULATION_ACCESS(bytes)                                                            \
  extern "C" __attribute__((visibility("hidden"))) void __tsan_read##bytes(void* address) {     \
    ::cuda_emulation::check_access(Access::read, address, bytes, __builtin_return_address(0));  \
  }                                                                                             \
  extern "C" __attribute__((visibility("hidden"))) void __tsan_write##bytes(void* address) {    \
    ::cuda_emulation::check_access(Access::write, address, bytes, __builtin_return_address(0)); \
  }
CUDA_EMULATION_ACCESS(1)
CUDA_EMULATION_ACCESS(2)
CUDA_EMULATION_ACCESS(4)
CUDA_EMULATION_ACCESS(8)
CUDA_EMULATION_ACCESS(16)

extern "C" {
#pragma GCC visibility push(hidden)
void __tsan_read_range(void* address, std::size_t bytes) {
  ::cuda_emulation::check_access(Access::read, address, bytes, __builtin_return_address(0));
}
void __tsan_write_range(void* address, std::size_t bytes) {
  ::cuda_emulation::check_access(Access::write, address, bytes, __builtin_return_address(0));
}
void __tsan_vptr_update(void**, void*) {}  // of the host's exceptions
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
#pragma GCC visibility pop
}
