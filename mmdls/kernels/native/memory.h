// Memory and threads.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <unistd.h>

namespace {

// Memory that was used before, so that the system need not clear new pages at every call. Who finds it locked does
// without: it may have been locked for ever in the parent of this process.
struct Kept {
    static constexpr size_t MOST = size_t(48) << 20;  // bytes

    std::mutex lock;
    std::vector<std::pair<size_t, void*>> blocks;
    size_t bytes = 0;

    void* take(size_t least) {
        std::unique_lock<std::mutex> own(lock, std::try_to_lock);
        if (!own) return nullptr;
        for (auto block = blocks.begin(); block != blocks.end(); ++block)
            if (block->first == least) {
                void* found = block->second;
                blocks.erase(block);
                bytes -= least;
                return found;
            }
        return nullptr;
    }
    bool give(size_t size, void* block) {
        std::unique_lock<std::mutex> own(lock, std::try_to_lock);
        if (!own || bytes + size > MOST) return false;
        blocks.emplace_back(size, block);
        bytes += size;
        return true;
    }
};
Kept& kept_memory() {
    static Kept* kept = new Kept;  // never destroyed: threads may end after it would be
    return *kept;
}

struct Free {
    size_t size;
    void operator()(float* p) const {
        if (!kept_memory().give(size, p)) std::free(p);
    }
};
typedef std::unique_ptr<float[], Free> Buffer;

Buffer buffer(size_t n) {
    size_t size = (n * sizeof(float) + 63) / 64 * 64;
    void* p = kept_memory().take(size);
    if (!p) p = std::aligned_alloc(64, size);
    if (!p) throw std::bad_alloc();
    return Buffer(static_cast<float*>(p), Free{size});
}
Buffer zeros(size_t n) {
    Buffer made = buffer(n);
    std::memset(made.get(), 0, n * sizeof(float));
    return made;
}

template <class Number>
inline void add_up(const std::vector<const Number*>& parts, size_t n, float* out) {
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (const Number* part : parts) sum += part[i];
        out[i] = float(sum);
    }
}

// The threads with which torch computes, if they are known: functions of its OpenMP library. Threads of our own would
// wait for those, which keep their processors busy for a while after each operation. A process that was forked has no such
// threads, and the library would wait for them for ever.
struct Team {
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
    int (*number)() = nullptr;
    int (*size)() = nullptr;
    pid_t owner = 0;

    bool is_here() const { return parallel && getpid() == owner; }
};
Team& team() {
    static Team team;
    return team;
}

// work(state, first, last) for a division of n units into parts, one for each state and thread. Few units need few threads:
// waking or starting one takes longer than a small part of the work.
template <class State, class Work>
void divided(int64_t n, std::vector<State>& states, Work work) {
    size_t parts = std::max<int64_t>(std::min<int64_t>(states.size(), n), 1), started = 1;
    auto part = [&](size_t i) { work(states[i], n * int64_t(i) / int64_t(parts), n * int64_t(i + 1) / int64_t(parts)); };
    if (parts > 1 && team().is_here()) {
        auto all = [&] {
            for (size_t i = team().number(); i < parts; i += team().size()) part(i);
        };
        team().parallel([](void* given) { (*static_cast<decltype(all)*>(given))(); }, &all, unsigned(parts), 0);
        return;
    }
    std::vector<std::thread> others;
    try {
        for (; started < parts; started++) others.emplace_back(part, started);
    } catch (const std::system_error&) {  // no more threads: this one does the rest
        for (size_t i = started; i < parts; i++) part(i);
    }
    part(0);
    for (auto& other : others) other.join();
}

// Everything that may not fit into memory is requested before any thread starts.
template <class Work>
int guarded(Work work) {
    try {
        work();
    } catch (const std::bad_alloc&) {
        return 1;
    }
    return 0;
}

}  // namespace
