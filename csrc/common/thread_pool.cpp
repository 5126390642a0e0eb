#include "common/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

namespace neurokern {
namespace {

class ThreadPool {
 public:
  // False if another caller holds the pool.
  bool try_run(std::int64_t n_tasks, int n_threads, Task task, void* context) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner.owns_lock()) return false;
    grow(n_threads - 1);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      task_ = task;
      context_ = context;
      n_tasks_ = n_tasks;
      next_.store(0, std::memory_order_relaxed);
      n_wanted_ = std::min(n_threads - 1, n_workers_);
      n_running_ = n_wanted_;
      ++generation_;
    }
    wake_.notify_all();
    work();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return n_running_ == 0; });
    return true;
  }

 private:
  void grow(int n_workers) {
    const std::lock_guard<std::mutex> lock(mutex_);
    while (n_workers_ < n_workers) {
      try {
        std::thread([this, id = n_workers_, seen = generation_] { loop(id, seen); }).detach();
      } catch (const std::system_error&) {
        return;  // the system grants no more threads: go on with those that there are
      }
      ++n_workers_;
    }
  }

  void work() {
    for (std::int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < n_tasks_;) task_(context_, i);
  }

  void loop(int id, std::uint64_t seen) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return generation_ != seen; });
      seen = generation_;
      if (id >= n_wanted_) continue;
      lock.unlock();
      work();
      lock.lock();
      if (--n_running_ == 0) done_.notify_one();
    }
  }

  std::mutex owner_, mutex_;
  std::condition_variable wake_, done_;
  std::atomic<std::int64_t> next_{0};
  std::uint64_t generation_ = 0;
  std::int64_t n_tasks_ = 0;
  Task task_ = nullptr;
  void* context_ = nullptr;
  int n_workers_ = 0, n_wanted_ = 0, n_running_ = 0;
};

// Never deleted: its threads may outlive static destruction, and a forked child must not touch its mutexes.
std::atomic<ThreadPool*> pool{nullptr};

ThreadPool& the_pool() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { pool.store(nullptr); });
  static_cast<void>(registered);
  ThreadPool* current = pool.load();
  if (current == nullptr) {
    auto* fresh = new ThreadPool;
    if (pool.compare_exchange_strong(current, fresh)) return *fresh;
    delete fresh;
  }
  return *current;
}

}  // namespace

void parallel_for(std::int64_t n_tasks, int n_threads, Task task, void* context) {
  const int useful = static_cast<int>(std::min<std::int64_t>(n_threads, n_tasks));
  if (useful > 1 && the_pool().try_run(n_tasks, useful, task, context)) return;
  for (std::int64_t i = 0; i < n_tasks; ++i) task(context, i);
}

}  // namespace neurokern
