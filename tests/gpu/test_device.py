"""The real-GPU path, as far as it can be tested without one: a stand-in driver that executes on the simulator."""

import ctypes
from typing import Any

import numpy as np
import pytest

from loadsparse.gpu import device, kernels, simulator, verify
from loadsparse.gpu.launch import Launch


class Driver:
    """The driver calls that `device.execute` makes; kernels run on the simulator, memory is keyed by address."""

    CUfunction_attribute = staticmethod(int)

    def __init__(self, arch: str) -> None:
        self.arch, self.memory, self.freed = arch, dict[int, Any](), list[int]()

    def cuDeviceGet(self, number: int) -> tuple[int, int]:
        return 0, number

    def cuDevicePrimaryCtxRetain(self, number: int) -> tuple[int, str]:
        return 0, "context"

    def cuDevicePrimaryCtxRelease(self, number: int) -> tuple[int]:
        return (0,)

    def cuCtxSetCurrent(self, context: str) -> tuple[int]:
        return (0,)

    def cuCtxSynchronize(self) -> tuple[int]:
        return (0,)

    def cuMemAlloc(self, size: int) -> tuple[int, int]:
        address = 0x1000 * (len(self.memory) + 1)
        self.memory[address] = np.zeros(size, np.uint8)
        return 0, address

    def cuMemFree(self, address: int) -> tuple[int]:
        self.freed.append(address)
        return (0,)

    def cuMemcpyHtoD(self, address: int, host: int, size: int) -> tuple[int]:
        ctypes.memmove(self.memory[address].ctypes.data, host, size)
        return (0,)

    def cuMemcpyDtoH(self, host: int, address: int, size: int) -> tuple[int]:
        ctypes.memmove(host, self.memory[address].ctypes.data, size)
        return (0,)

    def cuModuleLoadData(self, text: bytes) -> tuple[int, Any]:
        assert text.endswith(b"\0")
        return 0, simulator.load(text[:-1].decode(), arch=self.arch)

    def cuModuleUnload(self, module: Any) -> tuple[int]:
        return (0,)

    def cuModuleGetFunction(self, module: Any, name: bytes) -> tuple[int, Any]:
        return 0, module[name.decode()]

    def cuFuncSetAttribute(self, function: Any, attribute: int, value: int) -> tuple[int]:
        assert attribute == device.MAX_DYNAMIC_SHARED
        return (0,)

    def cuLaunchKernel(self, function: Any, *rest: Any) -> tuple[int]:
        *grid_and_block, shared, _stream, (values, kinds), _extra = rest
        args = [
            self.memory[value] if kind is ctypes.c_void_p else kind(value).value
            for value, kind in zip(values, kinds, strict=True)
        ]
        function.launch(tuple(grid_and_block[:3]), tuple(grid_and_block[3:]), *args, shared_bytes=shared)
        return (0,)


def planned() -> Launch:
    rng = np.random.default_rng(3)
    a = (rng.standard_normal((40, 70)) * (rng.random((40, 70)) < 0.3)).astype(np.float16)
    kernel = kernels.get("lscd")
    return kernel.plan(kernel.encode(a), rng.standard_normal((70, 5)).astype(np.float16), split_k=2)


def test_same_product_as_the_simulator_and_nothing_leaks() -> None:
    launch = planned()
    memory = {name: np.array(array, order="C") for name, array in launch.buffers.items()}
    stand_in = Driver("sm_80")
    device.execute(launch, memory, stand_in)
    expected, _ = launch.run()
    assert memory[launch.output].tobytes() == expected.tobytes()
    assert sorted(stand_in.freed) == sorted(stand_in.memory)


def test_a_refusal_of_the_driver_is_one_line_and_frees_memory() -> None:
    launch = planned()
    memory = {name: np.array(array, order="C") for name, array in launch.buffers.items()}
    stand_in = Driver("sm_80")
    stand_in.cuLaunchKernel = lambda *_: (Failure(),)  # type: ignore[method-assign]
    with pytest.raises(device.NoGpu, match="answered CUDA_ERROR_LAUNCH_FAILED"):
        device.execute(launch, memory, stand_in)
    assert sorted(stand_in.freed) == sorted(stand_in.memory)


class Failure:
    name = "CUDA_ERROR_LAUNCH_FAILED"

    def __int__(self) -> int:
        return 719


def test_without_a_gpu_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise device.NoGpu("no CUDA driver can be loaded")

    monkeypatch.setattr(device, "driver", absent)
    with pytest.raises(verify.InputError, match="no GPU to run on: no CUDA driver can be loaded; leave --device out"):
        verify.verify("lscd", "random", device="cuda")
    with pytest.raises(verify.InputError, match="unknown device 'tpu'"):
        verify.verify("lscd", "random", device="tpu")
