"""Every kernel refuses weights of another form, and weights whose arrays contradict one another, in one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from loadsparse.gpu import kernels
from loadsparse.gpu.kernels import planning
from loadsparse.reference.formats import LaneBitmap, TiledCSL

NAMES = ("lscd", "bitmap", "adaptive", "dense", "sputnik", "sparta", "twofour", *kernels.GROUPED)
M, K = 70, 100
RNG = np.random.default_rng(3)
A = np.where(RNG.random((M, K // 4, 4)) < 0.5, RNG.standard_normal((M, K // 4, 4)), 0)
B = np.ones((K, 3), np.float16)
Change = Callable[[Any], Any]

SHAPED: dict[str, Change] = {
    "short": lambda array: array[:-1],
    "empty": lambda array: array[:0],
    "wider": lambda array: array.astype(np.int64),
    "float": lambda array: array.astype(np.float64),
    "another rank": lambda array: array[None],
    "list": lambda array: array.tolist(),
    "other byte order": lambda array: array.astype(array.dtype.newbyteorder(">")),
}
OFFSETS: dict[str, Change] = {
    "falling": lambda array: array[::-1].copy(),
    "negative": lambda array: -array,
    "huge": lambda array: np.full_like(array, 2**31 - 1),
    "late": lambda array: array + 1,
}


def encoded(name: str) -> Any:
    a = np.where(np.arange(4) < 2, A, 0) if name == "twofour" else A
    a = a.reshape(M, K).astype(np.float16)
    return kernels.get(name).encode(np.stack([a, a]) if name in kernels.GROUPED else a)


def plan(name: str, weights: Any, b: Any = B) -> Any:
    more: dict[str, Any] = {"counts": [1, 2]} if name in kernels.GROUPED else {}
    return kernels.get(name).plan(weights, b, **more)


def parts_of(weights: Any) -> Iterator[tuple[Any, Callable[[Any], Any]]]:
    """Each format object inside of the weights, and how to put another one in its place."""
    inner = [field for field in ("stack", "structured", "rest") if hasattr(weights, field)]
    for field in inner:
        yield getattr(weights, field), lambda one, field=field: dataclasses.replace(weights, **{field: one})
    if not inner:
        yield weights, lambda one: one


def refused(name: str, weights: Any, message: str = "encode the weights again") -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        plan(name, weights)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith(f"kernel {name}")


@pytest.mark.parametrize("name", NAMES)
def test_another_form(name: str) -> None:
    others = [TiledCSL.encode(np.ones((M, K), np.float16)), encoded("dense"), encoded("sparta"), B, None]
    for other in others:
        if type(other) is not type(encoded(name)):
            refused(
                name, other, f"got {type(other).__name__}: encode the weights with kernels.get\\('{name}'\\).encode"
            )


def test_experts_of_the_other_grouped_kernel() -> None:
    refused("grouped_lscd", encoded("grouped_bitmap"), "multiplies experts in TiledCSL, got LaneBitmap: encode")


@pytest.mark.parametrize("name", NAMES)
def test_arrays_and_shapes_that_contradict_one_another(name: str) -> None:
    for part, put in parts_of(encoded(name)):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            changes = SHAPED if isinstance(value, np.ndarray) else {}
            if field.name in ("offsets", "tile_offsets", "row_pointers"):
                changes = {**changes, **OFFSETS}
            if field.name == "shape":
                changes = {str(shape): lambda _, shape=shape: shape for shape in [(M + 64, K), (0, K), (M,), (70.0, K)]}
            if field.name == "dtype":
                changes = {"f8": lambda _: "f8"}
            for change in changes.values():
                refused(name, put(dataclasses.replace(part, **{field.name: change(value)})))


@pytest.mark.parametrize(
    ("name", "field", "at", "value", "message"),
    [
        ("lscd", "items", 0, 0xFFFFFFFF, "location 65535 in tile 0"),
        ("lscd", "items", 0, 0x3C00 | 99 << 16, "already taken|outside the shape"),
        ("bitmap", "data", 2, 0xFFFFFFFF, "does not fit the .* bits of tile 0"),
        ("adaptive", "data", 0, 7, "tile 0 has the kind 7"),
        ("sputnik", "columns", 0, K, f"{K} outside row 0"),
        ("twofour", "metadata", 0, 0, "not two rising positions"),
        ("sparta", "metadata", 0, 0, "not two rising positions"),
        ("grouped_lscd", "items", 0, 0xFFFFFFFF, "location 65535 in tile 0"),
        ("grouped_bitmap", "data", 2, 0xFFFFFFFF, "does not fit the .* bits of tile 0"),
    ],
)
def test_items_that_lie(name: str, field: str, at: int, value: int, message: str) -> None:
    part, put = next(iter(parts_of(encoded(name))))
    array = getattr(part, field).copy()
    array[at] = value
    refused(name, put(dataclasses.replace(part, **{field: array})), message)


def test_parts_that_hold_the_same_element() -> None:
    both = encoded("sparta")
    whole = kernels.get("sputnik").encode(A.reshape(M, K).astype(np.float16))
    refused("sparta", dataclasses.replace(both, rest=whole), "both parts hold element")


def test_experts_that_are_not_whole_tile_rows() -> None:
    for change in ({"experts": 3}, {"tile_rows": 2}, {"shape": (M, K + 1)}, {"experts": 0}):
        refused("grouped_lscd", dataclasses.replace(encoded("grouped_lscd"), **change), "ExpertWeights")


def test_of_large_weights_only_the_layout_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "LARGE", M * K)
    monkeypatch.setattr(LaneBitmap, "validate", lambda self: pytest.fail("every item was read"))
    weights = encoded("bitmap")
    assert plan("bitmap", weights).shape == (M, 3, K)
    refused("bitmap", dataclasses.replace(weights, offsets=-weights.offsets))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("b", [B.tolist(), None])
def test_b_that_is_no_array(name: str, b: Any) -> None:
    with pytest.raises(ValueError, match="B must be a NumPy array"):
        plan(name, encoded(name), b)


@pytest.mark.parametrize("a", [[[1.0]], None, "abc"])
def test_a_that_is_no_matrix(a: Any) -> None:
    for name in NAMES:
        with pytest.raises(ValueError, match=r"a f16 matrix is|sequence of one expert or more"):
            kernels.get(name).encode(a)
