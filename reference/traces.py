"""Routing traces: router scores, choices and biases of trained DeepSeekMoE layers on real tokens.

The packaged ones are of the small models that `tutorials/deepseekmoe` trains (64 experts, 6 per token, width 64, on
the source of Python's standard library); that folder makes bigger ones, too. They are real routing of *small* models.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from loadsparse.reference import routing

MOST_BYTES = 1 << 30  # of a file, unpacked
Element = TypeVar("Element", bound=np.generic)
_PACKAGED = Path(__file__).parent / "data" / "deepseekmoe_traces.npz"


@dataclass(frozen=True)
class Trace:
    """One MoE layer on T tokens. name: "ARM/LAYER".

    scores float16 [T, E] without bias; choices int64 [T, K], those that the model made from its float32 scores, in
    descending s + p; bias float64 [E], the p of the end of training. Raises ValueError where they do not fit.
    """

    name: str
    scores: npt.NDArray[np.float16]
    choices: npt.NDArray[np.int64]
    bias: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        routing.checked_scores(self.scores, self.choices.shape[-1])
        if self.choices.ndim != 2 or len(self.choices) != len(self.scores) or not len(self.scores):
            raise ValueError(
                f"choices have shape {self.choices.shape}, scores {self.scores.shape}: one row per token each"
            )
        routing.add_bias(self.scores, self.bias)
        _ = self.loads
        if not np.diff(np.sort(self.choices, axis=1), axis=1).all():
            raise ValueError("a token chooses one expert twice")

    @property
    def k(self) -> int:
        """K, experts per token."""
        return int(self.choices.shape[1])

    @property
    def loads(self) -> npt.NDArray[np.int64]:
        """A_k, tokens of every expert: int64 [E]."""
        return routing.loads(self.choices, self.scores.shape[1])


def load(path: str | Path | None = None) -> dict[str, Trace]:
    """All traces of a file by name, the packaged ones without a path; ValueError names what is wrong with the file.

    The file is an .npz of three arrays per layer: "ARM/LAYER/scores" float [T, E], the router's scores without bias;
    "ARM/LAYER/choices" integer [T, K], the experts that were chosen; "ARM/LAYER/bias" float [E], zeros where there is none.

    >>> sorted(load())[:2]
    ['loss-1e-2/1', 'loss-1e-2/2']
    """
    file = _PACKAGED if path is None else Path(path)
    try:
        with file.open("rb") as stream:
            with zipfile.ZipFile(stream) as archive:
                if sum(member.file_size for member in archive.infolist()) > MOST_BYTES:
                    raise ValueError(f"unpacked it has more than {MOST_BYTES} bytes")
            stream.seek(0)
            return _read(stream)
    except (OSError, EOFError, KeyError, MemoryError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{file} is no file of traces: {error}") from None


def _read(stream: BinaryIO) -> dict[str, Trace]:
    with np.load(stream, allow_pickle=False) as found:
        if not isinstance(found, np.lib.npyio.NpzFile):
            raise ValueError("it is one array")
        names = sorted(name.removesuffix("/scores") for name in found.files if name.endswith("/scores"))
        if not names:
            raise ValueError("it holds no array NAME/LAYER/scores")
        return {
            name: Trace(
                name,
                _cast(found, f"{name}/scores", "f", np.float16),
                _cast(found, f"{name}/choices", "iu", np.int64),
                _cast(found, f"{name}/bias", "f", np.float64),
            )
            for name in names
        }


def _cast(found: Mapping[str, npt.NDArray[Any]], name: str, kinds: str, to: type[Element]) -> npt.NDArray[Element]:
    array = found[name]
    if array.dtype.kind not in kinds:
        raise ValueError(f"{name} has dtype {array.dtype}, expected {'floats' if kinds == 'f' else 'integers'}")
    with np.errstate(over="ignore"):  # too large for a float16 becomes infinite, which is refused
        return array.astype(to)


def get(name: str, path: str | Path | None = None) -> Trace:
    """The trace of that name, "ARM/LAYER"; ValueError lists the names.

    >>> trace = get("sign-1e-3/2")
    >>> trace.scores.shape, trace.k
    ((1024, 64), 6)
    """
    known = load(path)
    if name not in known:
        raise ValueError(f"unknown trace {name!r}; known: {', '.join(known)}")
    return known[name]


def find(text: str) -> Trace:
    """The trace that a text names: ARM/LAYER of the packaged ones, or FILE.npz:ARM/LAYER of a file of your own (`save`).

    >>> find("sign-1e-3/2").name
    'sign-1e-3/2'
    """
    path, colon, name = text.rpartition(":")
    return get(name, path if colon else None)


def save(path: str | Path, traces: dict[str, Trace]) -> None:
    """Write a file that `load` reads: compressed .npz, scores float16, choices uint8 or uint16."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for name, trace in traces.items():
        narrow = np.uint8 if trace.scores.shape[1] <= 256 else np.uint16
        arrays |= {
            f"{name}/scores": trace.scores, f"{name}/choices": trace.choices.astype(narrow), f"{name}/bias": trace.bias
        }  # fmt: skip
    with Path(path).open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
