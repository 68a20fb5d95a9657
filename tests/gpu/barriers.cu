// Barrier and pipeline objects as NVIDIA's programming guide introduces them. Every kernel runs with 128 threads.
#include <cooperative_groups.h>
#include <cuda/barrier>
#include <cuda/pipeline>

using Barrier = cuda::barrier<cuda::thread_scope_block>;
constexpr int N = 128;

#define SETUP                                                   \
    __shared__ Barrier bar;                                     \
    __shared__ int s[N];                                        \
    auto block = cooperative_groups::this_thread_block();       \
    const int t = threadIdx.x;                                  \
    if (t == 0) init(&bar, block.size());                       \
    block.sync();                                               \
    int total = 0;

// out[t] = sum_r in[r N + N-1-t]
extern "C" __global__ void split(int *out, const int *in, int rounds) {
    SETUP
    for (int r = 0; r < rounds; ++r) {
        s[t] = in[r * N + t];
        auto token = bar.arrive();
        int before = total;  // work between arrival and wait
        bar.wait(std::move(token));
        total = before + s[N - 1 - t];
        bar.arrive_and_wait();
    }
    out[t] = total;
}

extern "C" __global__ void copy(int *out, const int *in, int rounds) {
    SETUP
    for (int r = 0; r < rounds; ++r) {
        cuda::memcpy_async(block, s, in + r * N, sizeof(int) * N, bar);
        bar.arrive_and_wait();
        total += s[N - 1 - t];
        bar.arrive_and_wait();
    }
    out[t] = total;
}

// Wrong: reads before the wait.
extern "C" __global__ void copy_early(int *out, const int *in, int rounds) {
    SETUP
    for (int r = 0; r < rounds; ++r) {
        cuda::memcpy_async(block, s, in + r * N, sizeof(int) * N, bar);
        total += s[N - 1 - t];
        bar.arrive_and_wait();
        bar.arrive_and_wait();
    }
    out[t] = total;
}

// Wrong: the next copy may overwrite what others still read.
extern "C" __global__ void copy_over(int *out, const int *in, int rounds) {
    SETUP
    for (int r = 0; r < rounds; ++r) {
        cuda::memcpy_async(block, s, in + r * N, sizeof(int) * N, bar);
        bar.arrive_and_wait();
        total += s[N - 1 - t];
    }
    out[t] = total;
}

// Wrong: thread 0 arrives twice.
extern "C" __global__ void twice(int *out, const int *in, int rounds) {
    SETUP
    s[t] = in[t];
    auto token = bar.arrive(t == 0 ? 130 : 1);
    bar.wait(std::move(token));
    out[t] = s[N - 1 - t];
}

// Wrong: one thread never arrives.
extern "C" __global__ void absent(int *out, const int *in, int rounds) {
    SETUP
    s[t] = in[t];
    if (t != 77) bar.arrive_and_wait();
    out[t] = s[N - 1 - t];
}

template <bool waits>
__device__ void stages(int *out, const int *in, int rounds) {
    __shared__ int s[2 * N];
    __shared__ cuda::pipeline_shared_state<cuda::thread_scope_block, 2> state;
    auto block = cooperative_groups::this_thread_block();
    auto pipeline = cuda::make_pipeline(block, &state);
    const int t = threadIdx.x;
    int total = 0;
    for (int r = 0; r <= rounds; ++r) {
        if (r < rounds) {
            pipeline.producer_acquire();
            cuda::memcpy_async(block, s + r % 2 * N, in + r * N, sizeof(int) * N, pipeline);
            pipeline.producer_commit();
        }
        if (r == 0) continue;
        if (waits) pipeline.consumer_wait();
        total += s[(r - 1) % 2 * N + N - 1 - t];
        if (!waits) pipeline.consumer_wait();
        pipeline.consumer_release();
    }
    out[t] = total;
}

extern "C" __global__ void two_stages(int *out, const int *in, int rounds) { stages<true>(out, in, rounds); }
extern "C" __global__ void two_stages_early(int *out, const int *in, int rounds) { stages<false>(out, in, rounds); }

// Half of the threads copy, the others add: out[t] = sum_r in[r N + t] + in[r N + t + N/2] for t < N/2, else 0
extern "C" __global__ void roles(int *out, const int *in, int rounds) {
    __shared__ int s[2 * N];
    __shared__ cuda::pipeline_shared_state<cuda::thread_scope_block, 2> state;
    auto block = cooperative_groups::this_thread_block();
    const bool produces = threadIdx.x < N / 2;
    auto pipeline =
        cuda::make_pipeline(block, &state, produces ? cuda::pipeline_role::producer : cuda::pipeline_role::consumer);
    int total = 0;
    for (int r = 0; r < rounds; ++r) {
        if (produces) {
            pipeline.producer_acquire();
            for (int i = threadIdx.x; i < N; i += N / 2)
                cuda::memcpy_async(&s[r % 2 * N + i], &in[r * N + i], sizeof(int), pipeline);
            pipeline.producer_commit();
        } else {
            pipeline.consumer_wait();
            for (int i = threadIdx.x - N / 2; i < N; i += N / 2) total += s[r % 2 * N + i];
            pipeline.consumer_release();
        }
    }
    if (!produces) out[threadIdx.x - N / 2] = total;
}
