// Stackful fibers on one thread of the host: a fiber runs until it waits, and whoever resumed it goes on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cuda_emulation {

struct Fiber {
  void* stack_pointer = nullptr;
};

// Fibers that run the same function, made when they are first needed and used again.
class FiberPool {
 public:
  FiberPool(std::size_t capacity, void (*body)());
  ~FiberPool();
  FiberPool(const FiberPool&) = delete;
  FiberPool& operator=(const FiberPool&) = delete;

  Fiber* idle();              // a fiber that is to run `body`
  void resume(Fiber* fiber);  // until it suspends
  void suspend();             // from within a fiber
  Fiber* running() const { return running_; }
  void put_back(Fiber* fiber) { idle_.push_back(fiber); }
  void abandon();                         // forget the stacks of all fibers, as after an error
  bool holds(const void* address) const;  // on some fiber's stack?

 private:
  void prepare(Fiber* fiber, std::size_t number);

  std::size_t capacity_, n_made_ = 0;
  void (*body_)();
  unsigned char* stacks_;
  std::vector<Fiber> fibers_;
  std::vector<Fiber*> idle_;
  Fiber* running_ = nullptr;
  Fiber caller_;
};

}  // namespace cuda_emulation
