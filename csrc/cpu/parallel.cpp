// Threads of our own that sleep when idle, after some microseconds. OpenMP only says how many: its waiting threads spin, which on a few cores takes
// from BLAS, called between two kernels, more than the kernels gain, and its regions hang in a forked child.

#include "cpu/parallel.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include <unistd.h>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace randla::cpu {
namespace {

thread_local int index_of_thread = 0;

struct Job {
  int64_t pieces;
  void (*piece)(const void*, int64_t);
  const void* context;
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error{};

  void work() {
    for (int64_t i; !failed.load(std::memory_order_relaxed) && (i = next.fetch_add(1, std::memory_order_relaxed)) < pieces;) {
      try {
        piece(context, i);
      } catch (...) {
        if (!failed.exchange(true)) error = std::current_exception();
      }
    }
  }
};

// Waking a thread takes longer than a small job does: who waits looks out for so long before it sleeps.
constexpr std::chrono::microseconds kLook(30);

template <class Condition>
void look_out(const Condition& condition) {
  const auto end = std::chrono::steady_clock::now() + kLook;
  while (!condition() && std::chrono::steady_clock::now() < end)
    for (int i = 0; i < 16 && !condition(); ++i) {
#if RANDLA_X86
      __builtin_ia32_pause();
#endif
    }
}

class Pool {
 public:
  const pid_t process = getpid();
  std::mutex busy;  // held by the caller whose job runs

  void run(Job& job, int helpers) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      while (workers_ < helpers) {
        try {
          std::thread(&Pool::serve, this, workers_ + 1, generation_.load()).detach();
        } catch (const std::system_error&) {
          break;  // no more threads to be had: those that exist do the work
        }
        ++workers_;
      }
      helpers_ = helpers < workers_ ? helpers : workers_;
      running_ = helpers_;
      job_ = &job;
      ++generation_;
    }
    wake_.notify_all();
    job.work();
    look_out([&] { return running_.load(std::memory_order_acquire) == 0; });
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [&] { return running_ == 0; });
    job_ = nullptr;
  }

 private:
  void serve(int index, uint64_t seen) {
    index_of_thread = index;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      lock.unlock();
      look_out([&] { return generation_.load(std::memory_order_acquire) != seen; });
      lock.lock();
      wake_.wait(lock, [&] { return generation_ != seen; });
      seen = generation_;
      if (index > helpers_) continue;
      Job* job = job_;
      lock.unlock();
      job->work();
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;
  int workers_ = 0, helpers_ = 0;
  // Changed under the mutex only.
  std::atomic<int> running_{0};
  std::atomic<uint64_t> generation_{0};
};

// Never destroyed: its sleeping threads end with the process. A forked child has none of them and takes a new pool.
Pool& pool() {
  static std::atomic<Pool*> current{nullptr};
  Pool* have = current.load(std::memory_order_acquire);
  while (have == nullptr || have->process != getpid()) {
    Pool* fresh = new Pool;
    if (current.compare_exchange_strong(have, fresh)) return *fresh;
    delete fresh;
  }
  return *have;
}

}  // namespace

#ifdef _OPENMP
int max_threads() { return omp_get_max_threads(); }
void set_num_threads(int threads) { omp_set_num_threads(threads); }
bool has_openmp() { return true; }
#else
namespace {
thread_local int threads_wanted = 0;
}
int max_threads() {
  const int processors = static_cast<int>(std::thread::hardware_concurrency());
  return threads_wanted > 0 ? threads_wanted : processors > 0 ? processors : 1;
}
void set_num_threads(int threads) { threads_wanted = threads; }
bool has_openmp() { return false; }
#endif

int thread_index() { return index_of_thread; }

void run_pieces(int64_t pieces, void (*piece)(const void*, int64_t), const void* context) {
  int64_t threads = max_threads();
  if (threads > pieces) threads = pieces;
  if (threads > 1 && index_of_thread == 0) {
    Pool& p = pool();
    std::unique_lock<std::mutex> mine(p.busy, std::try_to_lock);
    if (mine.owns_lock()) {
      Job job{pieces, piece, context};
      p.run(job, static_cast<int>(threads) - 1);
      if (job.error) std::rethrow_exception(job.error);
      return;
    }
  }
  for (int64_t i = 0; i < pieces; ++i) piece(context, i);
}

}  // namespace randla::cpu
