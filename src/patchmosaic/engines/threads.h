// Threads that stay for the next call.

#pragma once

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

inline void pause() {
#if defined(__SSE2__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

class Pool {
    static constexpr int MOST = 256;
    static constexpr std::chrono::microseconds LOOKOUT{200};
    struct Worker {
        Pool *pool;
        int number, avoided = -1;  // avoided: a processor
        pthread_t thread;
    };

    std::mutex calls, mutex;
    std::condition_variable wake, done;
    Worker workers[MOST];
    int started = 0, wanted = 0;
    std::atomic<int> active{0};
    std::atomic<bool> alone{false};  // on one processor
    std::atomic<uint64_t> call{0};
    void (*work)(void *, int64_t, int) = nullptr;
    void *context = nullptr;
    int64_t units = 0;
    std::atomic<int64_t> next{0};

    void take(int thread) {
        for (int64_t unit; (unit = next++) < units;) work(context, unit, thread);
    }

    // Wait for what is likely to come soon: to sleep and to be woken takes as long as many a call.
    template <class Ready>
    void look_out(Ready ready) {
        if (alone) return;  // whoever looks out keeps the others from their work
        const auto end = std::chrono::steady_clock::now() + LOOKOUT;
        while (!ready() && std::chrono::steady_clock::now() < end)
            for (int i = 0; i < 16 && !ready(); i++) pause();
    }

    static void *live(void *argument) {
        Worker &worker = *(Worker *)argument;
        Pool &pool = *worker.pool;
        uint64_t seen = 0;
        for (;;) {
            const auto called = [&] { return pool.call != seen; };
            pool.look_out(called);
            std::unique_lock<std::mutex> lock(pool.mutex);
            pool.wake.wait(lock, called);
            seen = pool.call;
            if (worker.number > pool.wanted) continue;
            pool.active++;
            lock.unlock();
            pool.take(worker.number);
            lock.lock();
            if (--pool.active == 0) pool.done.notify_one();
        }
    }

    void start(int wanted) {
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for the threads of the program
        for (; started < wanted; started++) {
            Worker &worker = workers[started];
            worker.pool = this, worker.number = started + 1;
            if (pthread_create(&worker.thread, nullptr, live, &worker)) break;
            pthread_detach(worker.thread);
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

    // Linux likes to wake a thread on the processor that wakes it, which is busy for as long as the call takes.
    void keep_off_this_processor([[maybe_unused]] int workers) {
#if defined(__linux__)
        const int here = sched_getcpu();
        cpu_set_t others;
        if (here < 0 || sched_getaffinity(0, sizeof others, &others)) return;
        CPU_CLR(here, &others);
        alone = CPU_COUNT(&others) == 0;
        if (alone) return;
        for (int i = 0; i < workers; i++)
            if (this->workers[i].avoided != here && !pthread_setaffinity_np(this->workers[i].thread, sizeof others, &others))
                this->workers[i].avoided = here;
#endif
    }

    static Pool *only;
    static const int forks;

public:
    static Pool &get() { return *only; }

    // work(unit, thread) for every unit below `units`, on up to `threads` threads, this one among them. A call while
    // another is going on, from another thread, gets no help.
    template <class Work>
    void run(int threads, int64_t units, Work work) {
        const int helpers = (int)std::min<int64_t>({threads - 1, units - 1, MOST});
        std::unique_lock<std::mutex> whole(calls, std::defer_lock);
        if (helpers <= 0 || !whole.try_lock()) {
            for (int64_t unit = 0; unit < units; unit++) work(unit, 0);
            return;
        }
        start(helpers);
        keep_off_this_processor(std::min(helpers, started));
        {
            std::lock_guard<std::mutex> lock(mutex);
            this->work = [](void *work, int64_t unit, int thread) { (*(Work *)work)(unit, thread); };
            context = &work, this->units = units, next = 0, wanted = helpers, call++;
        }
        wake.notify_all();
        take(0);
        {
            std::lock_guard<std::mutex> lock(mutex);
            wanted = 0;  // who comes now comes too late
        }
        const auto finished = [&] { return active == 0; };
        look_out(finished);
        std::unique_lock<std::mutex> lock(mutex);
        done.wait(lock, finished);
    }
};

// Threads do not survive a fork, and another one may have held a lock: the child gets a pool of its own.
Pool *Pool::only = new Pool;
const int Pool::forks = pthread_atfork(nullptr, nullptr, [] { only = new Pool; });

}  // namespace
