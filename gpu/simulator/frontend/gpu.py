"""The GPU that scripts see: an A100 SXM4 80 GB unless another architecture is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Gpu:
    """What `cuda.get_current_device()` reports; attributes carry the driver's names without CU_DEVICE_ATTRIBUTE_."""

    arch: str
    name: str
    shared_per_multiprocessor: int
    shared_per_block: int
    warps_per_multiprocessor: int
    blocks_per_multiprocessor: int
    multiprocessors: int
    l2_bytes: int
    clock_khz: int
    attributes: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        major, minor = self.compute_capability
        values = _COMMON | {
            "COMPUTE_CAPABILITY_MAJOR": major,
            "COMPUTE_CAPABILITY_MINOR": minor,
            "MULTIPROCESSOR_COUNT": self.multiprocessors,
            "CLOCK_RATE": self.clock_khz,
            "L2_CACHE_SIZE": self.l2_bytes,
            "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": self.shared_per_block,
            "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR": self.shared_per_multiprocessor,
            "MAX_THREADS_PER_MULTIPROCESSOR": 32 * self.warps_per_multiprocessor,
            "MAX_BLOCKS_PER_MULTIPROCESSOR": self.blocks_per_multiprocessor,
        }
        object.__setattr__(self, "attributes", values)

    @property
    def compute_capability(self) -> tuple[int, int]:
        digits = self.arch.removeprefix("sm_").rstrip("af")
        return int(digits[:-1]), int(digits[-1])


_COMMON = {
    "MAX_THREADS_PER_BLOCK": 1024,
    "MAX_BLOCK_DIM_X": 1024,
    "MAX_BLOCK_DIM_Y": 1024,
    "MAX_BLOCK_DIM_Z": 64,
    "MAX_GRID_DIM_X": 2**31 - 1,
    "MAX_GRID_DIM_Y": 65535,
    "MAX_GRID_DIM_Z": 65535,
    "MAX_SHARED_MEMORY_PER_BLOCK": 48 << 10,
    "RESERVED_SHARED_MEMORY_PER_BLOCK": 1 << 10,
    "TOTAL_CONSTANT_MEMORY": 64 << 10,
    "WARP_SIZE": 32,
    "MAX_PITCH": 2**31 - 1,
    "MAX_REGISTERS_PER_BLOCK": 65536,
    "MAX_REGISTERS_PER_MULTIPROCESSOR": 65536,
    "TEXTURE_ALIGNMENT": 512,
    "GPU_OVERLAP": 1,
    "KERNEL_EXEC_TIMEOUT": 0,
    "INTEGRATED": 0,
    "CAN_MAP_HOST_MEMORY": 1,
    "COMPUTE_MODE": 0,
    "CONCURRENT_KERNELS": 1,
    "ECC_ENABLED": 0,
    "PCI_BUS_ID": 0,
    "PCI_DEVICE_ID": 0,
    "PCI_DOMAIN_ID": 0,
    "TCC_DRIVER": 0,
    "ASYNC_ENGINE_COUNT": 1,
    "UNIFIED_ADDRESSING": 1,
    "MANAGED_MEMORY": 1,
    "CONCURRENT_MANAGED_ACCESS": 1,
    "PAGEABLE_MEMORY_ACCESS": 0,
    "COOPERATIVE_LAUNCH": 1,
    "SINGLE_TO_DOUBLE_PRECISION_PERF_RATIO": 2,
    "STREAM_PRIORITIES_SUPPORTED": 0,
    "GLOBAL_L1_CACHE_SUPPORTED": 1,
    "LOCAL_L1_CACHE_SUPPORTED": 1,
    "MULTI_GPU_BOARD": 0,
    "HOST_NATIVE_ATOMIC_SUPPORTED": 0,
    "COMPUTE_PREEMPTION_SUPPORTED": 0,
    "CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM": 0,
}

_KIB, _MIB = 1 << 10, 1 << 20
GPUS = {
    "sm_80": Gpu("sm_80", "Simulated A100", 164 * _KIB, 163 * _KIB, 64, 32, 108, 40 * _MIB, 1_410_000),
    "sm_86": Gpu("sm_86", "Simulated RTX 3090", 100 * _KIB, 99 * _KIB, 48, 16, 82, 6 * _MIB, 1_695_000),
    "sm_89": Gpu("sm_89", "Simulated RTX 4090", 100 * _KIB, 99 * _KIB, 48, 24, 128, 72 * _MIB, 2_520_000),
    "sm_90": Gpu("sm_90", "Simulated H100", 228 * _KIB, 227 * _KIB, 64, 32, 132, 50 * _MIB, 1_830_000),
}
