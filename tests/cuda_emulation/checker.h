// Checks every access of a kernel to memory: the compiler calls __tsan_read4 and its like before each one
// (g++ -fsanitize=thread), and these are ours instead of ThreadSanitizer's.
//
//   bounds         the access lies within an array that the launch was told of, or within shared memory
//   initialised    what it reads was written before (shared memory, and arrays that were told of as fresh)
//   races          two accesses of different threads, one of them a write, not both atomic, have a barrier
//                  between them; a block never waits for another block
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace cuda_emulation {

// Tells of memory that the next launches may touch; `fresh` if nothing has been written to it yet.
void add_array(std::uintptr_t address, std::size_t bytes, bool fresh);
void forget_arrays();

enum class Access { read, write, atomic };
void check_access(Access access, const void* address, std::size_t bytes, const void* caller);

// The order of accesses within the block that runs.
void start_launch_order(std::size_t threads_of_launch);
void start_block_order(std::size_t number, std::size_t threads);
void order_block();                               // at __syncthreads: what came before is over
void order_lanes(unsigned first, unsigned mask);  // at __syncwarp, for these lanes of the warp at `first`

std::string source_line(const void* caller);  // "kernel.cu:55" of the instruction before this address

}  // namespace cuda_emulation
