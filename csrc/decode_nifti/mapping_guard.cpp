#include "decode_nifti/mapping_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <mutex>

namespace neurokern {
namespace {

// A fixed table without locks: all that a signal handler may look at.
constexpr int kMostMappings = 16384;
struct Guarded {
  std::atomic<std::uintptr_t> begin{0}, end{0};
  std::atomic<bool> torn{false};
};
static_assert(std::atomic<std::uintptr_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);
Guarded guarded[kMostMappings];
struct sigaction before;

Guarded* find(std::uintptr_t address) {
  for (Guarded& mapping : guarded) {
    const std::uintptr_t begin = mapping.begin.load();
    if (begin != 0 && address >= begin && address < mapping.end.load()) return &mapping;
  }
  return nullptr;
}

// Zeros from the page of the address to the mapping's end; the read that failed is then tried again.
bool tear(Guarded& mapping, std::uintptr_t address) {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const std::uintptr_t from = address / page * page;
  mapping.torn.store(true);
  return mmap(reinterpret_cast<void*>(from), mapping.end.load() - from, PROT_READ,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  Guarded* mapping = find(reinterpret_cast<std::uintptr_t>(info->si_addr));
  if (mapping != nullptr && tear(*mapping, reinterpret_cast<std::uintptr_t>(info->si_addr))) return;
  if ((before.sa_flags & SA_SIGINFO) != 0) {
    before.sa_sigaction(signal, info, context);
  } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
    before.sa_handler(signal);
  } else {
    sigaction(signal, &before, nullptr);  // what failed is tried again, and meets what was there before us
  }
}

void set_handler() {
  struct sigaction action{};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, &before);
}

}  // namespace

int guard_mapping(const unsigned char* begin, std::size_t bytes) {
  static std::once_flag once;
  static std::mutex mutex;
  std::call_once(once, set_handler);
  const std::lock_guard<std::mutex> lock(mutex);
  for (int number = 0; number < kMostMappings; ++number) {
    Guarded& mapping = guarded[number];
    if (mapping.begin.load() != 0) continue;
    mapping.torn.store(false);
    mapping.end.store(reinterpret_cast<std::uintptr_t>(begin) + bytes);
    mapping.begin.store(reinterpret_cast<std::uintptr_t>(begin));
    return number;
  }
  return -1;
}

void release_mapping(int number) { guarded[number].begin.store(0); }

bool is_torn(int number) { return guarded[number].torn.load(); }

}  // namespace neurokern
