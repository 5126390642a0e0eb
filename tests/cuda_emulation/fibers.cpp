#include "fibers.h"

#include <sys/mman.h>

#include <new>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace cuda_emulation {
namespace {

constexpr std::size_t kStackBytes = 256 << 10,
                      kGuardBytes = 64 << 10;  // the guard: no access, below the stack

}  // namespace

#if defined(__x86_64__)

// Keeps the registers that a function must keep on the old stack, and takes those of the new one.
extern "C" void cuda_emulation_switch(void** old_stack, void* new_stack);
asm(R"(
.text
.hidden cuda_emulation_switch
.globl cuda_emulation_switch
.type cuda_emulation_switch, @function
cuda_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_emulation_switch, .-cuda_emulation_switch
)");

static void switch_fibers(Fiber& from, Fiber& to) {
  cuda_emulation_switch(&from.stack_pointer, to.stack_pointer);
}

static void* first_stack_pointer(unsigned char* end_of_stack, void (*body)()) {
  // Six registers, then the address to return to, then the place of the caller's return address: the stack is
  // aligned as after a call.
  void** top = reinterpret_cast<void**>(end_of_stack) - 2;
  top[1] = nullptr;
  top[0] = reinterpret_cast<void*>(body);
  for (int i = 1; i <= 6; ++i) top[-i] = nullptr;
  return top - 6;
}

#else  // slower, anywhere

static void switch_fibers(Fiber& from, Fiber& to) {
  static ucontext_t callers;  // the scheduler's
  if (from.stack_pointer == nullptr) from.stack_pointer = &callers;
  swapcontext(static_cast<ucontext_t*>(from.stack_pointer), static_cast<ucontext_t*>(to.stack_pointer));
}

static void* first_stack_pointer(unsigned char* end_of_stack, void (*body)()) {
  auto* context = reinterpret_cast<ucontext_t*>(end_of_stack - sizeof(ucontext_t) / 64 * 64 - 64);
  getcontext(context);
  context->uc_stack.ss_sp = end_of_stack - kStackBytes;
  context->uc_stack.ss_size = reinterpret_cast<unsigned char*>(context) - (end_of_stack - kStackBytes);
  makecontext(context, body, 0);
  return context;
}

#endif

FiberPool::FiberPool(std::size_t capacity, void (*body)())
    : capacity_(capacity), body_(body), fibers_(capacity) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* memory = mmap(nullptr, capacity * (kStackBytes + kGuardBytes), PROT_NONE, flags, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  stacks_ = static_cast<unsigned char*>(memory);
}

FiberPool::~FiberPool() { munmap(stacks_, capacity_ * (kStackBytes + kGuardBytes)); }

void FiberPool::prepare(Fiber* fiber, std::size_t number) {
  unsigned char* stack = stacks_ + number * (kStackBytes + kGuardBytes) + kGuardBytes;
  if (mprotect(stack, kStackBytes, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
  fiber->stack_pointer = first_stack_pointer(stack + kStackBytes, body_);
}

Fiber* FiberPool::idle() {
  if (idle_.empty()) {
    Fiber* fiber = &fibers_.at(n_made_);
    prepare(fiber, n_made_++);
    return fiber;
  }
  Fiber* fiber = idle_.back();
  idle_.pop_back();
  return fiber;
}

void FiberPool::resume(Fiber* fiber) {
  running_ = fiber;
  switch_fibers(caller_, *fiber);
  running_ = nullptr;
}

void FiberPool::suspend() { switch_fibers(*running_, caller_); }

void FiberPool::abandon() {
  n_made_ = 0;
  idle_.clear();
}

bool FiberPool::holds(const void* address) const {
  const auto* byte = static_cast<const unsigned char*>(address);
  return byte >= stacks_ && byte < stacks_ + capacity_ * (kStackBytes + kGuardBytes);
}

}  // namespace cuda_emulation
