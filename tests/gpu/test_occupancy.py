"""Occupancy equals NVIDIA's own rules: worked by hand, and against NVIDIA's calculator where it is installed."""

import itertools
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from loadsparse.gpu.simulator import LaunchError
from loadsparse.gpu.simulator.occupancy import CARVEOUTS, occupancy

ARCHES = ("sm_80", "sm_86", "sm_89", "sm_90")


@pytest.mark.parametrize(
    ("arch", "threads", "registers", "shared", "blocks", "limiter"),
    [
        # 32 registers x 32 lanes = 1024 per warp; 16384 / 1024 = 16 warps in each partition, 64 in all
        ("sm_80", 1024, 32, 0, 2, ("warps", "registers")),
        ("sm_80", 1024, 33, 0, 1, ("registers",)),
        ("sm_80", 32, 16, 0, 32, ("blocks",)),
        ("sm_89", 32, 16, 0, 24, ("blocks",)),
        # (72 + 1) KB twice in 164 KB
        ("sm_80", 128, 154, 72 * 1024, 2, ("shared",)),
        # 154 x 32 = 4928 -> 5120 per warp; 3 per partition = 12 warps = 3 blocks
        ("sm_80", 128, 154, 1024, 3, ("registers",)),
        ("sm_90", 128, 100, 113 * 1024, 2, ("shared",)),
        # 5 warps are checked as 8: 8 x 255 x 32 fits; 8160 -> 8192 per warp, 2 per partition = 8 warps
        ("sm_80", 160, 255, 0, 1, ("registers",)),
        ("sm_80", 1024, 65, 0, 0, ("registers",)),
        ("sm_80", 32, 16, 164 * 1024, 0, ("shared",)),
    ],
)
def test_worked_by_hand(arch, threads, registers, shared, blocks, limiter):
    found = occupancy(arch, threads, registers, shared)
    assert (found.blocks, found.limiter) == (blocks, limiter)
    assert found.warps == blocks * -(-threads // 32)
    assert found.fraction == found.warps / (64 if arch in ("sm_80", "sm_90") else 48)


def test_impossible_numbers_are_refused():
    for arguments in (("sm_70", 32, 32), ("sm_80", 0, 32), ("sm_80", 1025, 32), ("sm_80", 32, -1)):
        with pytest.raises(LaunchError):
            occupancy(*arguments)
    with pytest.raises(LaunchError, match="carve-out"):
        occupancy("sm_80", 32, 32, 0, carveout=200 * 1024)


PROGRAM = r"""
#include <cstdio>
#include <cstring>
#include <climits>
#include "cuda_occupancy.h"
int main() {
    int major, minor, threads, registers, per_sm, optin, sm_threads, static_bytes, dynamic_bytes;
    while (scanf("%d %d %d %d %d %d %d %d %d", &major, &minor, &sm_threads, &per_sm, &optin, &threads, &registers,
                 &static_bytes, &dynamic_bytes) == 9) {
        cudaOccDeviceProp device;
        device.computeMajor = major; device.computeMinor = minor; device.maxThreadsPerBlock = 1024;
        device.maxThreadsPerMultiprocessor = sm_threads; device.regsPerBlock = device.regsPerMultiprocessor = 65536;
        device.warpSize = 32; device.sharedMemPerBlock = 49152; device.sharedMemPerMultiprocessor = per_sm;
        device.numSms = 100; device.sharedMemPerBlockOptin = optin; device.reservedSharedMemPerBlock = 1024;
        cudaOccFuncAttributes kernel;
        kernel.maxThreadsPerBlock = 1024; kernel.numRegs = registers; kernel.sharedSizeBytes = static_bytes;
        kernel.partitionedGCConfig = PARTITIONED_GC_OFF; kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
        kernel.maxDynamicSharedSizeBytes = dynamic_bytes; kernel.numBlockBarriers = 1;
        cudaOccDeviceState state;
        cudaOccResult result;
        memset(&result, 0, sizeof result);
        if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, dynamic_bytes))
            printf("error\n");
        else
            printf("%d\n", result.activeBlocksPerMultiprocessor);
    }
}
"""


def header():
    """NVIDIA's calculator, which some installations of the run time bring as a header."""
    for name in ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"):
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.name == "cuda_occupancy.h":
                return Path(str(file.locate()))
    return None


def test_equals_nvidias_calculator(tmp_path):
    found, compiler = header(), shutil.which("g++")
    if found is None or compiler is None:
        pytest.skip("NVIDIA's cuda_occupancy.h or a C++ compiler is not installed")
    (tmp_path / "oracle.cpp").write_text(PROGRAM)
    program = tmp_path / "oracle"
    subprocess.run([compiler, "-w", "-I", str(found.parent), tmp_path / "oracle.cpp", "-o", program], check=True)
    cases = [
        (arch, threads, registers, shared)
        for arch, threads, registers, shared in itertools.product(
            ARCHES,
            (1, 32, 33, 64, 96, 128, 160, 256, 384, 512, 768, 1024),
            (0, 1, 8, 16, 24, 32, 33, 40, 64, 65, 80, 96, 128, 154, 168, 200, 255, 256, 257),
            (0, 1, 1000, 4096, 16_384, 49_152, 49_153, 73_728, 99 * 1024, 99 * 1024 + 1, 163 * 1024, 227 * 1024),
        )
    ]
    lines = []
    for arch, threads, registers, shared in cases:
        per_sm = CARVEOUTS[arch][-1] * 1024
        warps = 64 if arch in ("sm_80", "sm_90") else 48
        lines.append(f"{arch[3]} {arch[4]} {warps * 32} {per_sm} {per_sm - 1024} {threads} {registers} 0 {shared}")
    done = subprocess.run([program], input="\n".join(lines), capture_output=True, text=True, check=True)
    theirs = done.stdout.split()
    ours = [str(occupancy(*case).blocks) for case in cases]
    assert len(theirs) == len(cases)
    assert [(c, o, t) for c, o, t in zip(cases, ours, theirs, strict=True) if o != t] == []
