"""What a launch may ask of a GPU, by architecture."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from operator import index

KIBI = 1024
STATIC_SHARED = 48 * KIBI
"""Static shared memory of a block; more must be dynamic."""
MAXIMUM_THREADS = 1024
MAXIMUM_BLOCK = (1024, 1024, 64)
MAXIMUM_GRID = (2**31 - 1, 65535, 65535)


@dataclass(frozen=True, slots=True)
class Limits:
    """Shared memory per block in bytes, multiprocessors of the largest part, and blocks one of them holds."""

    shared_bytes: int
    multiprocessors: int
    blocks: int


ARCHITECTURES = {
    "sm_80": Limits(163 * KIBI, 108, 32),
    "sm_86": Limits(99 * KIBI, 84, 16),
    "sm_89": Limits(99 * KIBI, 128, 24),
    "sm_90": Limits(227 * KIBI, 132, 32),
    "sm_90a": Limits(227 * KIBI, 132, 32),
}
"""Architectures whose Tensor Core arithmetic is known bit for bit."""


class LaunchError(ValueError):
    """A launch that cannot be made; one line says why and how to mend it."""


def limits(arch: str) -> Limits:
    """The limits of an architecture such as "sm_80"; `LaunchError` for one that is not simulated."""
    found = ARCHITECTURES.get(arch)
    if found is None:
        raise LaunchError(f"architecture {arch!r} is not simulated; choose one of {', '.join(ARCHITECTURES)}")
    return found


def dimensions(what: str, value: int | tuple[int, ...], maximum: tuple[int, int, int]) -> tuple[int, int, int]:
    """A grid or block size as three numbers, each checked."""
    if not isinstance(value, Integral | tuple | list):
        raise LaunchError(f"{what} {value!r} is not a whole number, nor one to three of them")
    given = (value,) if isinstance(value, Integral) else tuple(value)
    if not 1 <= len(given) <= 3:
        raise LaunchError(f"{what} has {len(given)} dimensions; give one to three")
    try:
        full = [index(number) for number in (*given, 1, 1)][:3]
    except TypeError:
        raise LaunchError(f"{what} {value!r} is not made of whole numbers") from None
    for axis, number, most in zip("xyz", full, maximum, strict=True):
        if not 1 <= number <= most:
            raise LaunchError(f"{what}.{axis} is {number}; it must lie between 1 and {most}")
    return full[0], full[1], full[2]


def check_launch(
    arch: str,
    block: tuple[int, int, int],
    static_shared: int,
    dynamic_shared: int,
    maximum: tuple[int, int, int] | None,
    required: tuple[int, int, int] | None,
) -> None:
    """Raises `LaunchError` for a block that the architecture or the kernel's own directives do not allow."""
    threads = block[0] * block[1] * block[2]
    if threads > MAXIMUM_THREADS:
        raise LaunchError(f"a block of {threads} threads; at most {MAXIMUM_THREADS} are possible")
    if required is not None and block != required:
        raise LaunchError(f"the kernel requires blocks of {required} (.reqntid), not {block}")
    if maximum is not None and threads > maximum[0] * maximum[1] * maximum[2]:
        raise LaunchError(f"a block of {threads} threads; the kernel was compiled for at most {maximum} (.maxntid)")
    if not isinstance(dynamic_shared, Integral):
        raise LaunchError(f"shared_bytes is {dynamic_shared!r}; give a whole number of bytes")
    if dynamic_shared < 0:
        raise LaunchError(f"shared_bytes is {dynamic_shared}; it cannot be negative")
    if static_shared > STATIC_SHARED and dynamic_shared == 0:
        raise LaunchError(
            f"{static_shared} bytes of static shared memory; at most {STATIC_SHARED}, use dynamic for more"
        )
    most = limits(arch).shared_bytes
    if static_shared + dynamic_shared > most:
        raise LaunchError(
            f"{static_shared + dynamic_shared} bytes of shared memory per block "
            f"({static_shared} static, {dynamic_shared} dynamic); {arch} has {most}"
        )
