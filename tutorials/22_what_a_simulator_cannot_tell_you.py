# %% [markdown]
# # What a simulator cannot tell you
#
# *The report is green, the counts are exact, no GPU was near. What do you know now, and what not?*

# %% jupyter={"source_hidden": true} tags=["hide-input"]
from pictures import canvas, cells, show

figure, axis = canvas(width=8, height=2.4)
rows = [
    "is this product right?",
    "instructions, turns, sectors",
    "registers and spills",
    "warps that fit",
    "bytes from DRAM",
    "seconds",
]
origin = ["compared with an oracle", "counted", "compiled", "derived", "modelled", "measure it on a GPU"]
cells(axis, [[o] for o in origin], [[i / 5] for i in range(6)], rows, ["where the answer comes from"])
show(
    figure,
    "Six questions and where their answers come from: an oracle, counting, the compiler, derivation, a model, and for seconds only a measurement.",
)

# %% [markdown]
# | | |
# |---|---|
# | Prerequisites | [skinny matmuls](01_skinny_matmuls.ipynb), [break it and see it](09_break_it_and_see_it.ipynb) |
# | Time | 30 minutes |
# | A common misconception | "Fewer instructions and fewer bank conflicts: this kernel is faster." Counts are exact, time is not among them; only a measurement on a GPU says what is faster. |
#
# ## You will learn
#
# 1. the four origins of a number here: *counted*, *compiled*, *derived*, *modelled*, and what each is worth;
# 2. three green reports of [kernels](glossary.md#kernel) that are wrong, or slow, all the same;
# 3. what to measure on a GPU before you claim anything.
#
# The kernels of this chapter are CUDA C++, which only NVIDIA's compiler reads. They come compiled, too (`compiled.cuda` finds them), so the chapter runs without it; to change one of them you need `pip install "loadsparse[nvidia]"`, on macOS in a Linux container. Without it nobody assembles the kernels either, so [registers](glossary.md#register) below, *compiled*, and [occupancy](glossary.md#occupancy), *derived* from them, are missing.

# %% [markdown]
# ## The idea in ten lines of NumPy
#
# A simulator follows the rules that it was given. One rule, exact in itself: a [warp](glossary.md#warp)'s access to [shared memory](glossary.md#shared-memory) takes as many [wavefronts](glossary.md#wavefront) as the fullest of 32 [banks](glossary.md#bank) holds distinct words.

# %%
import numpy as np


def wavefronts(stride: int) -> int:
    """Wavefronts of 32 lanes that each load the 4-byte word at lane * stride."""
    words = np.unique(np.arange(32) * stride)
    return int(np.bincount(words % 32).max())


assert [wavefronts(stride) for stride in (0, 1, 2, 32, 33)] == [1, 1, 2, 32, 1]
print("wavefronts at strides 0, 1, 2, 32, 33:", [wavefronts(stride) for stride in (0, 1, 2, 32, 33)])

# %% [markdown]
# The *count* is exact. That 32 wavefronts take 32 times as long is *not* in it: the other warps of the [multiprocessor](glossary.md#multiprocessor-sm) may hide it all, or nothing.
#
# ## Build it
#
# ### Four origins
#
# `profile` says of each number where it comes from. (Elsewhere in this project *compiled* is called reported, *modelled* predicted.)

# %%
from loadsparse.gpu import compiler, profiling, targets

job, _ = targets.resolve("lscd", shape=(128, 16, 128))
found = profiling.profile(job)
section = found.sections[0]
shown = (
    "smsp__inst_executed.sum",
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum",
    "launch__registers_per_thread",
    "sm__maximum_warps_per_active_cycle_pct",
    "dram__bytes_read.sum",
)
for metric in section.metrics:
    if metric.name in shown:
        print(f"{metric.source:9} {metric.name:58} {metric.value:>10,} {metric.unit}")
origins = {"counted", "derived", "modelled"}
if compiler.default_backend() == "nvidia":  # its assembler reports registers
    origins.add("compiled")
assert {metric.source for metric in section.metrics} == origins

# %% [markdown]
# - **Counted**: every [PTX](glossary.md#ptx) instruction was executed, every address seen. Exact, for these inputs. But PTX is not machine code: NVIDIA's assembler unrolls, fuses, and moves instructions after that.
# - **Compiled**: registers and [spills](glossary.md#spill) are what NVIDIA's own assembler reports for this architecture. Exact for this version of it.
# - **Derived**: occupancy by the rules of NVIDIA's calculator. Exact as *theoretical* occupancy: the achieved one depends on how long [blocks](glossary.md#block-thread-block) live.
# - **Modelled**: bytes from DRAM through an idealised L2. A real one is split in two, hashed, and shared with whoever else is there.
#
# ### Green, and wrong: other inputs

# %%
from loadsparse.gpu import simulator
from loadsparse.tutorials import compiled

AVERAGE = r"""
extern "C" __global__ void average(const int *x, int *out, int n) {
    int sum = 0;
    for (int i = threadIdx.x; i < n; i += 32) sum += x[i];
    for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffff, sum, d);
    if (threadIdx.x == 0) *out = sum / n;
}"""
module = simulator.load(compiled.cuda(AVERAGE), arch="sm_80")
out = np.zeros(1, np.int32)
for scale in (1_000, 1_000_000_000):
    x = np.full(64, scale, np.int32)
    report = module["average"].launch(1, 32, x, out, 64)
    print(f"average of 64 times {scale:,}: {out[0]:,}; {'green' if report.ok else 'red'}")
    assert report.ok
    assert (out[0] == scale) == (scale == 1_000)

# %% [markdown]
# The sum overflows: no rule of the machine was broken, so no [hazard](glossary.md#hazard) exists. A clean report says that *these* inputs broke no rule. Whether the answer is the one you wanted, only an [oracle](glossary.md#oracle) knows: that is why `verify` compares with one, on adversarial inputs.
#
# ### Green, and wrong: other schedules
#
# Numbers that pass a test are packed: each takes the next free place. The place is drawn by an [atomic](glossary.md#atomic), so nothing [races](glossary.md#race); yet which number comes first depends on which [thread](glossary.md#thread) does, and nobody promised an order.

# %%
from loadsparse.gpu.simulator.explore import explore_launch

PACK = r"""
extern "C" __global__ void pack(const int *x, int *count, int *out) {
    if (x[threadIdx.x] > 3) out[atomicAdd(count, 1)] = x[threadIdx.x];
}"""
(kernel,) = simulator.load(compiled.cuda(PACK), arch="sm_80").values()
x = np.random.default_rng(1).integers(0, 8, 256).astype(np.int32)
assert kernel.launch(1, 256, x, np.zeros(1, np.int32), np.zeros(256, np.int32)).ok
explored = explore_launch(kernel, 1, 256, x, np.zeros(1, np.int32), np.zeros(256, np.int32), count=8)
print(explored)
assert not explored.ok

# %% [markdown]
# Eight orders out of astronomically many. A difference proves a bug; no difference proves nothing.
#
# ### Green, and slow
#
# Two ways to walk through a matrix. Same result, same number of instructions.

# %%
WALK = r"""
extern "C" __global__ void walk(const float *x, float *out, int lane_step, int step) {
    float sum = 0;
    for (int i = 0; i < 32; i++) sum += x[threadIdx.x * lane_step + i * step];
    out[threadIdx.x] = sum;
}"""
(kernel,) = simulator.load(compiled.cuda(WALK), arch="sm_80").values()
matrix, out = np.ones(1024, np.float32), np.zeros(32, np.float32)
rows = []
for name, lane_step, step in (("along columns", 1, 32), ("along rows", 32, 1)):
    metrics = kernel.launch(1, 32, matrix, out, lane_step, step).metrics
    rows.append((metrics["smsp__inst_executed.sum"], metrics["l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum"]))
    print(f"{name}: {rows[-1][0]} warp instructions, {rows[-1][1]} sectors")
assert rows[0][0] == rows[1][0]
assert rows[1][1] == 8 * rows[0][1]

# %% [markdown]
# Eight times the [sectors](glossary.md#sector), and the report can say no more than that. If the cache catches them the second walk costs little; if not, it costs eightfold. Counts tell you *where to look*.
#
# ## Check it against the oracle
#
# What *is* promised can be tested: counts against the formula, and occupancy against arithmetic on paper.

# %%
SHARED = r"""
extern "C" __global__ void strided(float *out, int stride) {
    __shared__ float s[1100];
    for (int i = threadIdx.x; i < 1100; i += 32) s[i] = i;
    __syncwarp();
    out[threadIdx.x] = ((volatile float *)s)[threadIdx.x * stride];
}"""
(kernel,) = simulator.load(compiled.cuda(SHARED), arch="sm_80").values()
for stride in (0, 1, 2, 4, 32, 33):
    metrics = kernel.launch(1, 32, out, stride).metrics
    assert metrics["l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum"] == wavefronts(stride)

from loadsparse.gpu.simulator.occupancy import occupancy

# 80 registers x 32 lanes = 2560 per warp, in units of 256; 16384 in each of four sub-partitions hold 6 warps: 24, or 6 blocks of 4 warps
assert occupancy("sm_80", threads=128, registers=80).blocks == 6
print("counted wavefronts equal the formula; occupancy equals the arithmetic")

# %% [markdown]
# ## Numbers
#
# Occupancy is exact and still says little: how much of it a kernel needs depends on how long it waits. The steps of the staircase, for blocks of 128 threads:

# %%
registers = np.arange(16, 256)
figure, axis = canvas()
for arch in ("sm_80", "sm_89", "sm_90"):
    axis.plot(registers, [100 * occupancy(arch, 128, int(r)).fraction for r in registers], label=arch)
axis.set(xlabel="registers per thread", ylabel="theoretical occupancy, %", ylim=(0, 105), title="Derived, not measured")
axis.legend()
show(
    figure,
    "Occupancy falls in steps from 100 to 12 to 17 per cent as registers per thread grow from 16 to 255, on three architectures.",
)
assert occupancy("sm_80", 128, 255).fraction == 8 / 64

# %% [markdown]
# | question | the simulator | what to do on a GPU |
# |---|---|---|
# | is this product right, for these inputs? | yes, bit for bit | run it there once, compare the bits |
# | does it break a rule of CUDA? | for these inputs, in these schedules | compute-sanitizer |
# | how many instructions, wavefronts, sectors? | exact, of PTX | Nsight Compute, of machine code |
# | how fast is it? | **no** | CUDA events, warm and cold L2, several shapes |
# | does it scale to more GPUs, does it throttle, does the clock hold? | **no** | measure the whole program |
#
# ## Exercises
#
# 1. Find `x` for which `average` is wrong although no single element is above 100,000,000. What does the smallest counter-example look like?
# 2. Write a kernel whose result depends on `%clock`. What does the simulator return there, and is that a lie?
# 3. Take a count from this page and write the experiment that would show, on a GPU, that it does *not* matter for the time.
#
# <details><summary>Answers</summary>
#
# 1. The sum must exceed 2³¹ − 1. The smallest: 64 elements of 33,554,432, whose sum is 2³¹.
# 2. The number of warp instructions that this warp has executed so far: a counter that grows, as the manual demands, and the same in every run; 3 in the kernel below. It is no time, so a kernel that measures itself measures nothing here.
# 3. For instance sectors: give both walks the same kernel on a matrix of 1,024 elements (4 kB, which L1 holds) and on one of a billion; time 1,000 launches of each. If the ratio is 1 for the small one and 8 for the large one, the count matters only beyond the cache.
#
# </details>

# %%
overflowing = np.full(64, 33_554_432, np.int32)  # exercise 1
module["average"].launch(1, 32, overflowing, out, 64)
assert out[0] != 33_554_432
assert 64 * 33_554_432 == 2**31
CLOCK = r"""
extern "C" __global__ void now(int *x) { x[threadIdx.x] = clock(); }"""
(kernel,) = simulator.load(compiled.cuda(CLOCK), arch="sm_80").values()  # exercise 2
ticks = np.zeros(32, np.int32)
assert kernel.launch(1, 32, ticks).ok
assert ticks.tolist() == [3] * 32

# %% [markdown]
# ## Summary
#
# Counted, compiled, derived, modelled: four kinds of knowledge, and none of them is a time. A green report is about the inputs and orders that were run. Use it to be right, and to know where to look; then measure. Next: the other door, [an MoE layer in thirty lines](28_an_moe_layer_in_thirty_lines.ipynb), or the last chapter, [sparse experts on sparse weights](40_sparse_experts_on_sparse_weights.ipynb).
