"""Shapes of language models: the matmuls of a decoder layer, and how much they and the cache weigh."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from loadsparse.gpu.perfmodel.gpu import DATA, PerfError


@dataclass(frozen=True)
class Model:
    """A decoder-only transformer.

    Fields
        layers, hidden, heads, kv_heads, ffn, vocab
        gated        True: the MLP has gate, up and down matrices; False: up and down
        experts, top_k, shared, expert_ffn   routed experts of a MoE layer, chosen per token, always on, their width
        dense_layers first layers of a MoE model whose MLP is dense
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int
    gated: bool
    experts: int = 0
    top_k: int = 0
    shared: int = 0
    expert_ffn: int = 0
    dense_layers: int = 0

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in ("name", "gated"):
                continue
            least = 1 if one.name in ("layers", "hidden", "heads", "kv_heads", "ffn", "vocab") else 0
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
                raise PerfError(f"model {self.name!r}: {one.name} must be a whole number >= {least}, got {value!r}")
        if self.hidden % self.heads or self.heads % self.kv_heads:
            raise PerfError(f"model {self.name!r}: heads must divide hidden, and kv_heads must divide heads")
        if self.experts and not 1 <= self.top_k <= self.experts:
            raise PerfError(f"model {self.name!r}: top_k must lie between 1 and {self.experts}, got {self.top_k}")
        if self.experts and not self.expert_ffn:
            raise PerfError(f"model {self.name!r}: a model with experts needs expert_ffn")

    @property
    def kv_width(self) -> int:
        """Elements of one token's keys in a layer (and of its values)."""
        return self.hidden // self.heads * self.kv_heads

    def attention_matmuls(self, gpus: int) -> list[tuple[int, int]]:
        """(M, K) of the QKV and output projections on one of `gpus` tensor-parallel GPUs."""
        return [((self.hidden + 2 * self.kv_width) // gpus, self.hidden), (self.hidden, self.hidden // gpus)]

    def mlp_matmuls(self, gpus: int, width: int | None = None) -> list[tuple[int, int]]:
        """(M, K) of the MLP on one of `gpus` GPUs; gate and up are one matmul.  width: of an expert."""
        inner = self.ffn if width is None else width
        return [(inner * (2 if self.gated else 1) // gpus, self.hidden), (self.hidden, inner // gpus)]

    def matrices(self, gpus: int) -> list[tuple[int, int, int]]:
        """(M, K, how many) of all linear weights on one GPU, without the embedding."""
        moe_layers = self.layers - self.dense_layers if self.experts else 0
        found = [(m, k, self.layers) for m, k in self.attention_matmuls(gpus)]
        found += [(m, k, self.layers - moe_layers) for m, k in self.mlp_matmuls(gpus)]
        if moe_layers:
            many = moe_layers * (self.experts + self.shared)
            found += [(m, k, many) for m, k in self.mlp_matmuls(gpus, self.expert_ffn)]
        return [row for row in found if row[2]]


@cache
def _all() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DATA / "models.json").read_text(encoding="utf-8"))["models"]
    return loaded


def names() -> tuple[str, ...]:
    """Names of the packaged shapes."""
    return tuple(_all())


def get(model: str | Model) -> Model:
    """A model by name.  Raises PerfError that lists the names.

    >>> get("opt-66b").hidden
    9216
    """
    if isinstance(model, Model):
        return model
    name = str(model).lower().replace("_", "-")
    if name not in _all():
        raise PerfError(f"unknown model {model!r}: known are {', '.join(names())}")
    return Model(name, **_all()[name])
