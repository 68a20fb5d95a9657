"""Barriers that a thread goes past: found in divergent code, silent where a thread returned early or everyone comes."""

import random

import numpy as np
import pytest
from ptx_text import entry
from two_engines import both

from loadsparse.gpu.simulator.bypass import bypasses
from loadsparse.gpu.simulator.parser import parse

K = 'extern "C" __global__ void k'
PAST = {
    "inside the if of a reduction": """(int* o) {
  __shared__ int s[64]; int t = threadIdx.x; s[t] = t;
  __syncthreads();
  for (int k = 32; k; k /= 2)
    if (t < k) {
      s[t] += s[t + k];
      __syncthreads();  // BUG
    }
  if (t == 0) o[0] = s[0];
}""",
    "in a loop whose trips differ": """(int* o) {
  __shared__ int s[64]; int t = threadIdx.x, a = 0;
  for (int i = t; i < 100; i += 64) {
    s[t] = i;
    __syncthreads();  // BUG
    a += s[t];
  }
  o[t] = a;
}""",
    "by the first warp, which has ended when the second comes": """(int* o) {
  int c = 0;
  if (threadIdx.x >= 32)
    c = __syncthreads_count(threadIdx.x & 1);  // BUG
  o[threadIdx.x] = c;
}""",
    "before another barrier": """(int* o) {
  int t = threadIdx.x;
  if (t < 16)
    __syncthreads();  // BUG
  o[t] = t;
  __syncthreads();
}""",
}
SILENT = {
    "early return": """(int* o) {
  __shared__ int s[64]; int t = threadIdx.x;
  if (t >= 50) return;
  s[t] = t;
  __syncthreads();
  o[t] = s[49 - t];
}""",
    "as many trips in every thread of a block": """(int* o) {
  __shared__ int s[64]; int t = threadIdx.x, a = 0;
  for (int i = 0; i < 3 * blockIdx.x; i++) { s[t] = i; __syncthreads(); a += s[63 - t]; __syncthreads(); }
  o[64 * blockIdx.x + t] = a;
}""",
    "every warp at a barrier of its own": """(int* o) {
  __shared__ int s[32]; int t = threadIdx.x;
  if (t < 32) { s[t] = 1; __syncthreads(); __syncthreads(); s[t] = 3; }
  else { __syncthreads(); o[t] = s[t - 32]; __syncthreads(); }
  o[t] += t;
}""",
    "a barrier of some warps": """(int* o) {
  __shared__ int s[32]; int t = threadIdx.x;
  if (t < 32) { s[t] = t; asm volatile("bar.sync 1, 32;"); o[t] = s[31 - t]; }
  o[t] += 1;
}""",
}


@pytest.mark.parametrize("name", PAST)
def test_a_barrier_that_threads_went_past(name):
    line = next(number for number, text in enumerate((K + PAST[name]).splitlines(), 1) if "BUG" in text)
    _, report = both(K + PAST[name], np.zeros(64, np.int32), block=64)
    assert {(f.kind, f.source_line) for f in report.hazards} == {("convergence", line)}, report


@pytest.mark.parametrize("name", SILENT)
def test_no_thread_went_past(name):
    _, report = both(K + SILENT[name], np.zeros(128, np.int32), block=64, grid=1 + ("trips" in name))
    assert report.ok, report


def _drawn(draw):
    """A kernel of random jumps."""
    lines = []
    for number in range(draw.randrange(3, 14)):
        lines.append(
            f"L{number}: {draw.choice(['', 'add.u32 %r1, %r1, 1;', 'bar.sync 0;', 'bar.sync 0; mov.u32 %r1, 3;'])}"
        )
        lines.append(draw.choice(["", "@%p1 bra LX;", "@%p1 bra LX;", "bra LX;", "ret;", "@%p1 ret;"]))
    count = len(lines) // 2
    return entry("\n".join(line.replace("LX", f"L{draw.randrange(count)}") for line in lines))


def _expected(kernel):
    """The definition, by trying: instructions are places, and a place is on every way if without it there is none."""
    end = len(kernel.instructions)

    def after(place):
        i = kernel.instructions[place]
        jumps = [end] if i.name == "ret" else [o.target for o in i.operands] if i.name == "bra" else []
        return jumps + ([place + 1] if i.guard is not None or i.name not in ("ret", "bra") else [])

    def reach(start, without=None):
        seen, pending = set(), [place for place in start if place != without]
        while pending:
            place = pending.pop()
            if place not in seen:
                seen.add(place)
                pending += [p for p in (after(place) if place < end else []) if p != without]
        return seen

    def plain(place):
        i = kernel.instructions[place]
        return i.name in ("ret", "bra") and i.guard is None

    found = set()
    leaders = {0, *kernel.targets.values()} | {
        n + 1 for n, i in enumerate(kernel.instructions) if i.name in ("bra", "ret")
    }
    for site, instruction in enumerate(kernel.instructions):
        for place in sorted(leaders - {end}) if instruction.name == "bar" else ():
            body = range(place, min(leader for leader in leaders | {end} if leader > place))
            on_every_way = end in reach([site]) and end not in reach([site], place) and site not in body
            around = place in reach([0], max(leader for leader in leaders if leader <= site))
            back = reach(after(body[-1]))
            if on_every_way and around and site not in back and place not in back and not all(map(plain, body)):
                found.add((site, place))
    return found


def test_places_behind_barriers_are_those_of_the_definition():
    pairs = 0
    for seed in range(300):
        (kernel,) = parse(_drawn(random.Random(seed))).kernels.values()
        found = bypasses(kernel)
        behind = {(found.sites[slot], leader) for leader, slots in found.behind.items() for slot in slots}
        assert behind == _expected(kernel), seed
        pairs += len(behind)
    assert pairs > 50
