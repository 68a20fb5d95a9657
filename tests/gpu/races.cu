// Races in global memory and their clean twins.  The lines of a race are marked BUG, or BUG and OTHER.
#define I (blockIdx.x * blockDim.x + threadIdx.x)
#define T threadIdx.x
#define KERNEL extern "C" __global__ void
__device__ unsigned int ticket, flags[64], total;
__device__ volatile unsigned int signal;

KERNEL histogram_without_atomics(const int *x, int *bins) {
    bins[x[I] & 7] += 1;  // BUG
}
KERNEL histogram(const int *x, int *bins) {
    atomicAdd(&bins[x[I] & 7], 1);
}
KERNEL histogram_of_blocks(const int *x, int *bins) {
    __shared__ int own[8];
    if (T < 8) own[T] = 0;
    __syncthreads();
    atomicAdd(&own[x[I] & 7], 1);
    __syncthreads();
    if (T < 8) atomicAdd(&bins[T], own[T]);
}
KERNEL histogram_last_add_plain(const int *x, int *bins) {
    __shared__ int own[8];
    if (T < 8) own[T] = 0;
    __syncthreads();
    atomicAdd(&own[x[I] & 7], 1);
    __syncthreads();
    if (T < 8) bins[T] += own[T];  // BUG
}
KERNEL histogram_block_scope(const int *x, int *bins) {
    atomicAdd_block(&bins[x[I] & 7], 1);  // BUG
}
KERNEL stencil_in_place(float *x) {
    float right = x[(I + 1) % (gridDim.x * blockDim.x)];  // OTHER
    x[I] = right;  // BUG
}
KERNEL stencil(const float *x, float *y) {
    y[I] = x[I] + x[(I + 1) % (gridDim.x * blockDim.x)];
}
KERNEL stencil_steps_without_grid_barrier(float *x, float *y) {
    int n = gridDim.x * blockDim.x;
    y[I] = x[I] + x[(I + 1) % n];  // OTHER
    __syncthreads();
    x[I] = y[(I + n - 1) % n];  // BUG
}
KERNEL off_by_one_write(float *x) {
    x[I] = I;  // BUG
    if (I + 1 < gridDim.x * blockDim.x) x[I + 1] = 2 * I;  // BUG
}
KERNEL each_its_own(float *x) {
    x[I] = I;
    x[I] += 1;
}
KERNEL overlapping_tiles(float *x) {
    x[blockIdx.x * (blockDim.x - 1) + T] = blockIdx.x;  // BUG
}
KERNEL everyone_counts(int *n) {
    n[0] = n[0] + 1;  // BUG
}
KERNEL everyone_counts_atomically(int *n) {
    atomicAdd(n, 1);
}
KERNEL found(const int *x, int *flag) {
    if (x[I] > 3) flag[0] = 1;
}
KERNEL found_where(const int *x, int *flag) {
    if (x[I] > 3) flag[0] = I;  // BUG
}
KERNEL reduce_ticket_unfenced(const int *x, int *parts, int *out) {
    __shared__ bool last;
    if (T == 0) {
        parts[blockIdx.x] = x[I];  // OTHER
        last = atomicInc(&ticket, gridDim.x - 1) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (last && T == 0) {
        int sum = 0;
        for (int i = 0; i < gridDim.x; i++) sum += parts[i];  // BUG
        out[0] = sum;
    }
}
KERNEL reduce_ticket(const int *x, int *parts, int *out) {
    __shared__ bool last;
    if (T == 0) {
        parts[blockIdx.x] = x[I];
        __threadfence();
        last = atomicInc(&ticket, gridDim.x - 1) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (last && T < gridDim.x) atomicAdd(out, parts[T]);
}
KERNEL reduce_ticket_proxy_fence(const int *x, int *parts, int *out) {
    __shared__ bool last;
    if (T == 0) {
        parts[blockIdx.x] = x[I];  // OTHER
        asm volatile("fence.proxy.alias;" ::: "memory");
        last = atomicInc(&ticket, gridDim.x - 1) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (last && T == 0) {
        int sum = 0;
        for (int i = 0; i < gridDim.x; i++) sum += parts[i];  // BUG
        out[0] = sum;
    }
}
KERNEL reduce_ticket_block_fence(const int *x, int *parts, int *out) {
    __shared__ bool last;
    if (T == 0) {
        parts[blockIdx.x] = x[I];  // OTHER
        __threadfence_block();
        last = atomicInc(&ticket, gridDim.x - 1) == gridDim.x - 1;
        __threadfence_block();
    }
    __syncthreads();
    if (last && T == 0) {
        int sum = 0;
        for (int i = 0; i < gridDim.x; i++) sum += parts[i];  // BUG
        out[0] = sum;
    }
}
KERNEL reduce_ticket_without_barrier(const int *x, int *parts, int *out) {
    __shared__ bool last;
    parts[I] = x[I];  // OTHER
    if (T == 0) {
        __threadfence();
        last = atomicInc(&ticket, gridDim.x - 1) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (last && T == 0) {
        int sum = 0;
        for (int i = 0; i < gridDim.x * blockDim.x; i++) sum += parts[i];  // BUG
        out[0] = sum;
    }
}
KERNEL reduce_volatile(const int *x, volatile int *parts, int *out) {
    __shared__ bool last;
    if (T == 0) {
        parts[blockIdx.x] = x[I];
        __threadfence();
        last = atomicInc(&ticket, gridDim.x) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && T == 0) {
        int sum = 0;
        for (int i = 0; i < gridDim.x; i++) sum += parts[i];
        out[0] = sum;
        ticket = 0;
    }
}
KERNEL flag_without_fence(int *data, int *out) {
    if (T != 0) return;
    if (blockIdx.x == 0) {
        data[0] = 42;  // OTHER
        signal = 1;
    } else {
        while (signal == 0) {}
        out[blockIdx.x] = data[0];  // BUG
    }
}
KERNEL flag_with_fences(int *data, int *out) {
    if (T != 0) return;
    if (blockIdx.x == 0) {
        data[0] = 42;
        __threadfence();
        signal = 1;
    } else {
        while (signal == 0) {}
        __threadfence();
        out[blockIdx.x] = data[0];
    }
}
KERNEL flag_that_only_the_writer_fences(int *data, int *out) {
    if (T != 0) return;
    if (blockIdx.x == 0) {
        data[0] = 42;  // OTHER
        __threadfence();
        signal = 1;
    } else {
        while (signal == 0) {}
        out[blockIdx.x] = data[0];  // BUG
    }
}
KERNEL data_after_flag(int *data, int *out) {
    if (T != 0) return;
    if (blockIdx.x == 0) {
        __threadfence();
        signal = 1;
        data[0] = 42;  // OTHER
    } else {
        while (signal == 0) {}
        __threadfence();
        out[blockIdx.x] = data[0];  // BUG
    }
}
KERNEL plain_flag(int *data, int *out) {
    if (T != 0) return;
    if (blockIdx.x == 0) data[1] = 1;  // OTHER
    else out[blockIdx.x] = data[1];  // BUG
}
KERNEL release_acquire(int *data, int *out) {
    unsigned int got;
    if (T != 0) return;
    if (blockIdx.x == 0) {
        data[0] = 42;
        asm volatile("st.release.gpu.global.u32 [%0], 1;" :: "l"(&flags[0]) : "memory");
    } else {
        do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(got) : "l"(&flags[0]) : "memory");
        while (got == 0);
        out[blockIdx.x] = data[0];
    }
}
KERNEL release_of_block_scope(int *data, int *out) {
    unsigned int got;
    if (T != 0) return;
    if (blockIdx.x == 0) {
        data[0] = 42;  // OTHER
        asm volatile("st.release.cta.global.u32 [%0], 1;" :: "l"(&flags[0]) : "memory");  // OTHER
    } else {
        do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(got) : "l"(&flags[0]) : "memory");  // BUG
        while (got == 0);
        out[blockIdx.x] = data[0];  // BUG
    }
}
KERNEL locked(int *lock, int *n) {
    if (T != 0) return;
    while (atomicCAS(lock, 0, 1) != 0) {}
    __threadfence();
    n[0] = n[0] + 1;
    __threadfence();
    atomicExch(lock, 0);
}
KERNEL unlocked_too_early(int *lock, int *n) {
    if (T != 0) return;
    while (atomicCAS(lock, 0, 1) != 0) {}
    __threadfence();
    int value = n[0];  // BUG
    __threadfence();
    atomicExch(lock, 0);
    n[0] = value + 1;  // BUG
}
KERNEL locks_without_fences(int *lock, int *n) {
    if (T != 0) return;
    while (atomicCAS(lock, 0, 1) != 0) {}
    n[0] = n[0] + 1;  // BUG
    atomicExch(lock, 0);
}
KERNEL look_back(const int *x, volatile int *status, int *sums, int *out) {
    if (T != 0) return;
    int before = 0;
    if (blockIdx.x > 0) {
        while (status[blockIdx.x - 1] == 0) {}
        __threadfence();
        before = sums[blockIdx.x - 1];
    }
    sums[blockIdx.x] = before + x[I];
    __threadfence();
    status[blockIdx.x] = 1;
    out[blockIdx.x] = before;
}
KERNEL look_back_status_first(const int *x, volatile int *status, int *sums, int *out) {
    if (T != 0) return;
    int before = 0;
    if (blockIdx.x > 0) {
        while (status[blockIdx.x - 1] == 0) {}
        __threadfence();
        before = sums[blockIdx.x - 1];  // BUG
    }
    status[blockIdx.x] = 1;
    __threadfence();
    sums[blockIdx.x] = before + x[I];  // OTHER
    out[blockIdx.x] = before;
}
__device__ void grid_barrier(unsigned int round) {
    __syncthreads();
    if (T == 0) {
        __threadfence();
        atomicAdd(&total, 1);
        while (*(volatile unsigned int *)&total < round * gridDim.x) {}
        __threadfence();
    }
    __syncthreads();
}
KERNEL grid_steps(float *x, float *y) {
    int n = gridDim.x * blockDim.x;
    y[I] = x[I] + x[(I + 1) % n];
    grid_barrier(1);
    x[I] = y[(I + n - 1) % n];
}
KERNEL scratch_of_the_block(float *x, float *y) {
    x[I] = I;
    __syncthreads();
    y[I] = x[blockIdx.x * blockDim.x + (T ^ 40)];
}
KERNEL scratch_without_barrier(float *x, float *y) {
    x[I] = I;  // OTHER
    y[I] = x[blockIdx.x * blockDim.x + (T ^ 40)];  // BUG
}
KERNEL neighbours_output(const float *x, float *y) {
    y[I] = x[I];  // OTHER
    __syncthreads();
    if (blockIdx.x > 0 && T == 0) y[I] += y[I - 1];  // BUG
}
KERNEL order_of_blocks(const float *x, float *sum) {
    __shared__ float part;
    if (T == 0) part = x[I];
    __syncthreads();
    if (T == 5) sum[0] += part;  // BUG
}
KERNEL warp_scratch(float *x, float *y) {
    x[I] = I;
    __syncwarp();
    y[I] = x[I ^ 1];
}
KERNEL warp_scratch_across_warps(float *x, float *y) {
    x[I] = I;  // OTHER
    __syncwarp();
    y[I] = x[I ^ 32];  // BUG
}
KERNEL bytes_of_a_word(unsigned char *x) {
    x[I] = I;
}
KERNEL words_over_bytes(unsigned char *x) {
    if (T & 1) x[4 * (I / 2)] = I;  // BUG
    else *(unsigned int *)(x + 4 * (I / 2)) = I;  // OTHER
}
KERNEL vectors_overlap(float *x) {
    if (T & 1) *(float4 *)(x + 4 * (I / 2)) = make_float4(1, 2, 3, 4);  // BUG
    else x[4 * (I / 2) + 3] = I;  // OTHER
}
KERNEL vectors_beside(float *x) {
    *(float4 *)(x + 4 * I) = make_float4(I, 2, 3, 4);
}
KERNEL module_variable(int *out) {
    if (T == 0) total = blockIdx.x;  // BUG
}
KERNEL module_variable_atomic(int *out) {
    if (T == 0) atomicMax(&total, blockIdx.x);
}
KERNEL atomic_and_plain(int *n, int *out) {
    atomicAdd(n, 1);  // OTHER
    if (T == 0) out[blockIdx.x] = n[0];  // BUG
}
KERNEL atomic_and_volatile(volatile int *n, int *out) {
    atomicAdd((int *)n, 1);
    if (T == 0) out[blockIdx.x] = n[0];
}
KERNEL stale(int *x, int *out) {
    int got;
    x[I] = I;  // OTHER
    asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(got) : "l"(x + I) : "memory");  // BUG
    out[I] = got;
}
KERNEL fresh(int *x, int *out) {
    int got;
    asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(got) : "l"(x + I) : "memory");
    out[I] = got;
}
