// Runs the blocks of a launch one after the other, in an order drawn from a seed. A thread runs until it
// waits; a kernel whose threads never wait is a plain loop on one fiber.
#include "runtime.h"

#include <cstdlib>
#include <mutex>
#include <numeric>
#include <stdexcept>

#include "checker.h"

namespace cuda_emulation {

Coordinates now;
Block block;
unsigned current = 0;
const char* kernel_name = "";
bool in_kernel = false;

namespace {

void (*thread_function)(void*) = nullptr;
void* thread_call = nullptr;
std::string error;  // of the launch that runs

std::uint64_t random_state() {
  const char* seed = std::getenv("CUDA_EMULATION_SEED");
  return (seed ? std::strtoull(seed, nullptr, 10) : 0) + 0x9E3779B97F4A7C15u;
}

void run_threads();

FiberPool& fibers() {
  static FiberPool pool(kMaxThreads, run_threads);
  return pool;
}

std::vector<unsigned> shuffled(std::size_t n) {
  std::vector<unsigned> order(n);
  std::iota(order.begin(), order.end(), 0u);
  for (std::size_t i = n; i > 1; --i) std::swap(order[i - 1], order[draw(static_cast<unsigned>(i))]);
  return order;
}

void enter(unsigned thread) {
  current = thread;
  block.threads[thread].state = State::runs;
  now.thread = block.threads[thread].index;
}

// What a fiber does: one unstarted thread after the other, until those that were released want to go on.
void run_threads() {
  for (;;) {
    while (block.n_started < block.order.size() && block.ready.empty()) {
      enter(block.order[block.n_started++]);
      thread_function(thread_call);
      block.threads[current].state = State::returned;
      ++block.n_returned;
    }
    fibers().put_back(fibers().running());
    fibers().suspend();
  }
}

void wait(State state) {
  Thread& thread = block.threads[current];
  thread.state = state;
  thread.fiber = fibers().running();
  fibers().suspend();
}

void release(unsigned thread) { block.ready.push_back(thread); }

void resume_a_ready_thread() {
  const unsigned at = draw(static_cast<unsigned>(block.ready.size()));
  const unsigned thread = block.ready[at];
  block.ready[at] = block.ready.back();
  block.ready.pop_back();
  enter(thread);
  fibers().resume(block.threads[thread].fiber);
}

std::string name_of(Meeting meeting) {
  return meeting == Meeting::sync ? "__syncwarp" : meeting == Meeting::shuffle ? "a shuffle" : "a vote";
}

// Some threads wait, none can go on: say for what, a thread for each place.
std::string deadlock() {
  std::string text = "deadlock";
  std::vector<int> lines;
  for (unsigned t = 0; t < block.threads.size(); ++t) {
    const Thread& thread = block.threads[t];
    const bool for_block = thread.state == State::waits_for_block;
    if (!for_block && thread.state != State::waits_for_warp) continue;
    bool known = false;
    for (const int line : lines) known = known || line == thread.place.line;
    if (known) continue;
    lines.push_back(thread.place.line);
    text += "; " + thread_name(t) + " waits at " + (for_block ? "__syncthreads" : name_of(thread.meeting)) +
            ", " + thread.place.file + ":" + std::to_string(thread.place.line);
    if (!for_block) {
      char mask[16];
      std::snprintf(mask, sizeof mask, "0x%08x", thread.mask);
      text += std::string(" with mask ") + mask;
    }
  }
  return text + "; " + std::to_string(block.n_returned) + " of " + std::to_string(block.threads.size()) +
         " threads have returned";
}

void run_block(const Launch& launch, unsigned number) {
  const unsigned n_threads = static_cast<unsigned>(block.threads.size());
  now.block = dim3(number % launch.grid.x, number / launch.grid.x % launch.grid.y,
                   number / launch.grid.x / launch.grid.y);
  for (Thread& thread : block.threads) thread.state = State::unstarted;
  block.order = shuffled(n_threads);
  block.n_started = block.n_returned = block.n_at_barrier = block.n_true = 0;
  block.ready.clear();
  start_shared(launch.shared_bytes);
  start_block_order(number, n_threads);
  while (block.n_returned < n_threads) {
    const bool unstarted = block.n_started < n_threads;
    if (!block.ready.empty()) {
      resume_a_ready_thread();
    } else if (unstarted) {
      fibers().resume(fibers().idle());
    } else {
      error = deadlock();
    }
    if (!error.empty()) return;
  }
}

// As a GPU refuses it.
void check(const Launch& launch) {
  const auto volume = [](dim3 d) { return std::uint64_t{d.x} * d.y * d.z; };
  const auto refuse = [&](const char* what) {
    throw std::runtime_error(std::string("cuda_emulation: invalid launch of ") + launch.kernel + ": " + what);
  };
  if (volume(launch.grid) == 0 || launch.grid.x > 0x7FFFFFFFu || launch.grid.y > 65535u ||
      launch.grid.z > 65535u)
    refuse("grid");
  if (volume(launch.block) == 0 || volume(launch.block) > kMaxThreads || launch.block.z > 64) refuse("block");
  if (launch.shared_bytes > kMaxShared) refuse("dynamic shared memory beyond 227 KiB");
}

void prepare_block(const Launch& launch) {
  const dim3 size = launch.block;
  block.threads.assign(std::size_t{size.x} * size.y * size.z, Thread{});
  for (unsigned t = 0; t < block.threads.size(); ++t)
    block.threads[t].index = dim3(t % size.x, t / size.x % size.y, t / size.x / size.y);
  now.block_size = launch.block;
  now.grid_size = launch.grid;
}

}  // namespace

unsigned draw(unsigned n) {
  static std::uint64_t state = random_state();  // xorshift64*
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return static_cast<unsigned>((state * 0x2545F4914F6CDD1Du >> 32) * n >> 32);
}

std::string thread_name(unsigned thread) {
  const auto text = [](dim3 at, dim3 size) {
    std::string index = std::to_string(at.x);
    if (size.y > 1 || size.z > 1) index += "," + std::to_string(at.y);
    if (size.z > 1) index += "," + std::to_string(at.z);
    return index;
  };
  return "block " + text(now.block, now.grid_size) + " thread " +
         text(block.threads[thread].index, now.block_size);
}

bool on_a_stack(const void* address) { return fibers().holds(address); }

void fail(const std::string& message) {
  error = message;
  for (;;) fibers().suspend();  // it is never resumed
}

int wait_for_block(Barrier kind, bool predicate, Place place) {
  block.threads[current].place = place;
  block.n_true += predicate;
  if (++block.n_at_barrier == block.threads.size()) {
    bool same = true;
    for (const Thread& thread : block.threads) same = same && thread.place.line == place.line;
    if (same) {
      const std::size_t n = block.n_true;
      block.barrier_result = kind == Barrier::any   ? n > 0
                             : kind == Barrier::all ? n == block.threads.size()
                                                    : static_cast<int>(n);
      block.n_at_barrier = block.n_true = 0;
      order_block();
      for (unsigned t = 0; t < block.threads.size(); ++t) release(t);
    }
  }
  wait(State::waits_for_block);
  return block.barrier_result;
}

int lane() { return static_cast<int>(current % kWarp); }

std::uint64_t meet(Meeting kind, unsigned mask, std::uint64_t bits, int source, Place place) {
  const unsigned first = current - current % kWarp;
  const auto where = [&] { return std::string(place.file) + ":" + std::to_string(place.line); };
  if (!(mask >> lane() & 1))
    fail("wrong mask: " + thread_name(current) + " calls " + name_of(kind) + " without its own lane, " +
         where());
  if (kind == Meeting::shuffle && !(mask >> source & 1))
    fail("wrong mask: " + thread_name(current) + " reads lane " + std::to_string(source) +
         ", which does not take part, " + where());
  Thread& self = block.threads[current];
  self.place = place;
  self.meeting = kind;
  self.mask = mask;
  self.bits = bits;
  self.source = source;
  self.state = State::waits_for_warp;
  bool complete = true;
  std::uint64_t brought[kWarp] = {}, votes = 0;
  for (unsigned l = 0; l < kWarp; ++l) {
    if (!(mask >> l & 1)) continue;
    if (first + l >= block.threads.size())
      fail("wrong mask: it has lane " + std::to_string(l) + ", which " + thread_name(current) +
           "'s warp lacks, " + where());
    const Thread& other = block.threads[first + l];
    complete = complete && other.state == State::waits_for_warp && other.meeting == kind &&
               other.mask == mask && other.place.line == place.line;
    brought[l] = other.bits;
    votes |= std::uint64_t{other.bits != 0} << l;
  }
  if (complete) {
    if (kind == Meeting::sync) order_lanes(first, mask);  // shuffles and votes order no memory
    for (unsigned l = 0; l < kWarp; ++l) {
      if (!(mask >> l & 1)) continue;
      Thread& other = block.threads[first + l];
      other.bits = kind == Meeting::shuffle ? brought[other.source] : votes;
      other.state = State::runs;  // it no longer waits
      release(first + l);
    }
  }
  wait(complete ? State::runs : State::waits_for_warp);
  return block.threads[current].bits;
}

void run(const Launch& launch, void (*thread)(void*), void* call) {
  static std::mutex one_launch;
  const std::lock_guard<std::mutex> lock(one_launch);
  check(launch);
  kernel_name = launch.kernel;
  thread_function = thread;
  thread_call = call;
  error.clear();
  prepare_block(launch);
  start_launch_order(block.threads.size());
  in_kernel = true;
  for (const unsigned number : shuffled(std::size_t{launch.grid.x} * launch.grid.y * launch.grid.z)) {
    run_block(launch, number);
    if (!error.empty()) break;
  }
  in_kernel = false;
  if (error.empty()) return;
  fibers().abandon();
  throw std::runtime_error("cuda_emulation: " + std::string(launch.kernel) + ": " + error);
}

}  // namespace cuda_emulation
