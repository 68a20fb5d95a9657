"""Launch arguments: arrays become device allocations, scalars become parameter bytes."""

from __future__ import annotations

import numbers
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadsparse.gpu.simulator.limits import LaunchError
from loadsparse.gpu.simulator.program import WIDTH, Kernel, Variable
from loadsparse.gpu.simulator.request import ALLOCATION_BITS, DEFINED, FIRST_ARRAY, Allocation

STRUCTURE_MEND = "pass bytes or one structured element (an array without dimensions, or array[0])"


@dataclass(frozen=True, slots=True)
class Empty:
    """An output buffer whose contents are undefined before the launch."""

    array: NDArray[Any]


def empty(array: NDArray[Any]) -> Empty:
    """Marks an array argument as undefined: reading it before it is written is a hazard where it matters.

    >>> report = kernel.launch(1, 32, a, simulator.empty(c))                    # doctest: +SKIP
    """
    return Empty(array)


@dataclass(slots=True)
class Bound:
    """Parameter bytes, allocations, and what is copied back into which array."""

    parameters: NDArray[np.uint8]
    allocations: dict[int, Allocation]
    views: list[tuple[NDArray[Any], Allocation, int]] = field(default_factory=list)

    def copy_back(self) -> None:
        """Writes every array's bytes back; `LaunchError` if a read-only array was changed."""
        for array, allocation, offset in self.views:
            data = allocation.data[offset : offset + array.nbytes]
            flat = array.reshape(-1).view(np.uint8) if array.size else data
            if array.flags.writeable:
                flat[:] = data
            elif not np.array_equal(flat, data):
                raise LaunchError(f"{allocation.name} is read-only, but the kernel wrote to it")


def bind(kernel: Kernel, arguments: tuple[Any, ...]) -> Bound:
    """Checks number and kinds of arguments against the parameter list, and lays them out.

    Raises `LaunchError` naming the argument (counted from 0).
    """
    expected = kernel.parameters
    if len(arguments) != len(expected):
        raise LaunchError(f"{kernel.name[:60]} takes {len(expected)} arguments, {len(arguments)} given")
    size = max((p.offset + p.size for p in expected), default=0)
    bound = Bound(np.zeros(size, np.uint8), {})
    arrays: list[tuple[int, NDArray[Any], bool]] = []
    for number, (value, parameter) in enumerate(zip(arguments, expected, strict=True)):
        plain = value.array if isinstance(value, Empty) else value
        if isinstance(plain, np.ndarray) and plain.ndim == 0:
            plain = plain[()]
        if isinstance(plain, np.ndarray):
            _check_array(number, plain, parameter)
            arrays.append((number, plain, isinstance(value, Empty)))
        elif isinstance(value, Empty):
            raise LaunchError(f"argument {number}: empty() marks a NumPy array, not {type(plain).__name__}")
        else:
            _put(bound, parameter, scalar_bytes(number, plain, parameter))
    for number, address in _allocate(bound, arrays).items():
        _put(bound, expected[number], address.to_bytes(8, "little"))
    return bound


def _put(bound: Bound, parameter: Variable, data: bytes) -> None:
    bound.parameters[parameter.offset : parameter.offset + parameter.size] = np.frombuffer(data, np.uint8)


def _check_array(number: int, array: NDArray[Any], parameter: Variable) -> None:
    if parameter.size != 8 or parameter.type in ("f64",):
        is_structure = parameter.size != WIDTH[parameter.type] // 8
        mend = f" by value: {STRUCTURE_MEND}" if is_structure else ""
        raise LaunchError(
            f"argument {number} is an array, but the parameter is .{parameter.type} of {parameter.size} bytes{mend}"
        )
    if array.dtype.hasobject:
        raise LaunchError(f"argument {number} is an array of Python objects; use a numeric dtype")
    if array.dtype != array.dtype.newbyteorder("<"):
        raise LaunchError(
            f"argument {number} is big-endian, GPUs are not; pass array.astype(array.dtype.newbyteorder('<'))"
        )
    if not array.flags.c_contiguous:
        raise LaunchError(f"argument {number} is not C-contiguous; pass numpy.ascontiguousarray(...) of it")


def _allocate(bound: Bound, arrays: list[tuple[int, NDArray[Any], bool]]) -> dict[int, int]:
    """One allocation per connected stretch of host memory; returns each argument's device address."""
    spans = sorted(arrays, key=lambda item: item[1].__array_interface__["data"][0])
    groups: list[list[tuple[int, NDArray[Any], bool]]] = []
    end = -1
    for item in spans:
        start = item[1].__array_interface__["data"][0]
        if groups and start < end and item[1].nbytes:
            groups[-1].append(item)
        else:
            groups.append([item])
        end = max(end, start + item[1].nbytes) if groups[-1][0] is not item else start + item[1].nbytes
    addresses: dict[int, int] = {}
    order = sorted(groups, key=lambda group: min(number for number, _, _ in group))
    for device, group in enumerate(order, FIRST_ARRAY):
        starts = [array.__array_interface__["data"][0] for _, array, _ in group]
        base = min(starts)
        size = max(start + array.nbytes for start, (_, array, _) in zip(starts, group, strict=True)) - base
        if size >= 1 << ALLOCATION_BITS:
            raise LaunchError(f"argument {group[0][0]} has {size} bytes; at most {(1 << ALLOCATION_BITS) - 1}")
        undefined = any(marked for _, _, marked in group)
        allocation = Allocation(
            device,
            "array " + " = ".join(str(number) for number in sorted(number for number, _, _ in group)),
            np.zeros(size, np.uint8),
            np.zeros(size, np.uint8) if undefined else None,
        )
        for start, (number, array, marked) in zip(starts, group, strict=True):
            offset = start - base
            stretch = slice(offset, offset + array.nbytes)
            if array.nbytes:
                allocation.data[stretch] = array.reshape(-1).view(np.uint8)
            if allocation.defined is not None and not marked:
                allocation.defined[stretch] = DEFINED
            bound.views.append((array, allocation, offset))
            addresses[number] = (device << ALLOCATION_BITS) + offset
        bound.allocations[device] = allocation
    return addresses


def scalar_bytes(number: int, value: Any, parameter: Variable) -> bytes:
    """A scalar as the bytes of a parameter: integers are range-checked, floats rounded to the parameter's width.

    `.b32` and `.b64` parameters take either; None is the null pointer; `bytes` or a structured NumPy scalar of exactly
    its size fill a structure parameter.
    """
    kind, width = parameter.type, WIDTH[parameter.type]
    if isinstance(value, np.void):
        if value.dtype.hasobject:
            raise LaunchError(f"argument {number} is a structure of Python objects; use numeric fields")
        value = value.tobytes()
    if isinstance(value, bytes | bytearray):
        if len(value) != parameter.size:
            raise LaunchError(f"argument {number} has {len(value)} bytes, the parameter {parameter.size}")
        return bytes(value)
    if parameter.size != width // 8:
        raise LaunchError(f"argument {number} fills a structure of {parameter.size} bytes: {STRUCTURE_MEND}")
    if value is None and width == 64:
        return bytes(8)
    if isinstance(value, np.float16) and width == 16:
        return value.tobytes()
    if isinstance(value, bool | np.bool_):
        value = int(value)
    is_integer = isinstance(value, numbers.Integral)
    if kind.startswith("f") or (kind.startswith("b") and isinstance(value, numbers.Real) and not is_integer):
        if not isinstance(value, numbers.Real):
            raise LaunchError(f"argument {number} is {type(value).__name__}, the parameter .{kind} wants a number")
        try:
            return struct.pack({16: "<e", 32: "<f", 64: "<d"}[width], float(value))
        except OverflowError:
            raise LaunchError(f"argument {number} is {value}, too large for .{kind}") from None
    if not is_integer:
        wanted = "an integer or a NumPy array" if width == 64 else "an integer"
        raise LaunchError(f"argument {number} is {type(value).__name__}, the parameter .{kind} wants {wanted}")
    integer = int(value)
    if not -(1 << (width - 1)) <= integer < 1 << width:
        raise LaunchError(f"argument {number} is {integer}, out of range for .{kind}")
    return (integer & ((1 << width) - 1)).to_bytes(width // 8, "little")
