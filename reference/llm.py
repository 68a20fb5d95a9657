"""A Llama-like decoder (SmolLM2) in NumPy, forward only: logits, perplexity, and what pruning does to it.

With x [T, H] the hidden states of T tokens, each block adds two parts to them (Touvron et al., arXiv 2302.13971):
    x += O attention(Q n, K n, V n),   n = rms(x) * g_a,    rms(x)_i = x_i / sqrt(mean_j x_ij^2 + epsilon)
    x += D (silu(G m) * (U m)),        m = rms(x) * g_f,    silu(z) = z / (1 + exp(-z))
Attention is causal; query heads share key and value heads in groups (arXiv 2305.13245); positions enter by rotating
neighbouring pairs of Q and K (arXiv 2104.09864; GGUF files keep the pairs (2i, 2i + 1)). logits = E (rms(x) * g).
All is float32. The seven products of a block go through one function, `multiply`, so that a kernel can take them over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loadsparse.reference import gguf, pruning
from loadsparse.reference.tokenizer import Tokenizer

Floats = NDArray[np.float32]
Multiply = Callable[[str, Floats, Floats], Floats]
"""(name, W [M, K], x [T, K]) -> x W^T [T, M]; the name is that of the matrix, "blk.3.attn_q"."""

MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


class ModelError(ValueError):
    """A file that does not hold such a model; the message is one line."""


def plain(name: str, weights: Floats, x: Floats) -> Floats:
    """x W^T in float32."""
    return x @ weights.T


@dataclass(frozen=True)
class Model:
    """heads query heads share kv_heads key and value heads. blocks: per block its seven matrices [M, K] and two norms
    [H] by name. embedding and output [V, H]. base: of the rotation's frequencies."""

    heads: int
    kv_heads: int
    epsilon: float
    base: float
    embedding: Floats
    blocks: tuple[Mapping[str, Floats], ...]
    norm: Floats
    output: Floats

    def logits(self, tokens: Sequence[int], multiply: Multiply = plain) -> Floats:
        """float32[T, V]: row t scores what follows tokens[0..t]. Raises ModelError for no tokens or unknown ones."""
        numbers = np.asarray(tokens)
        if numbers.ndim != 1 or numbers.size == 0 or numbers.min() < 0 or numbers.max() >= len(self.embedding):
            raise ModelError(f"tokens are one or more numbers in [0, {len(self.embedding)})")
        x = self.embedding[numbers]
        for index in range(len(self.blocks)):
            x = self.block(index, x, multiply)
        return rms(x, self.norm, self.epsilon) @ self.output.T

    def block(self, index: int, x: Floats, multiply: Multiply = plain) -> Floats:
        """The hidden states [T, H] after one block."""
        weights = self.blocks[index]

        def product(name: str, of: Floats) -> Floats:
            return multiply(f"blk.{index}.{name}", weights[name], of)

        n = rms(x, weights["attn_norm"], self.epsilon)
        mixed = attention(product("attn_q", n), product("attn_k", n), product("attn_v", n), self.kv_heads, self.base)
        x = x + product("attn_output", mixed)
        m = rms(x, weights["ffn_norm"], self.epsilon)
        return x + product("ffn_down", silu(product("ffn_gate", m)) * product("ffn_up", m))


def rms(x: Floats, gain: Floats, epsilon: float) -> Floats:
    """Every row over the root of its mean square, times the gain [H]."""
    scale = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(epsilon))
    normed: Floats = (x * scale * gain).astype(np.float32)
    return normed


def silu(z: Floats) -> Floats:
    """z / (1 + exp(-z))."""
    with np.errstate(over="ignore"):  # exp(-z) = inf gives the right limit, -0
        gated: Floats = z / (1 + np.exp(-z))
    return gated


def rotated(x: Floats, base: float) -> Floats:
    """Heads [A, T, D] with the pair (2i, 2i + 1) of position t turned by the angle t base^(-2i / D)."""
    width = x.shape[-1]
    angles = np.arange(x.shape[1])[:, None] * base ** (-np.arange(0, width, 2) / width)
    turn = np.exp(1j * angles)
    pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * turn
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(x.shape).astype(np.float32)


def attention(q: Floats, k: Floats, v: Floats, kv_heads: int, base: float) -> Floats:
    """softmax(Q K^T / sqrt(D), causal) V for q [T, A D], k and v [T, kv_heads D]; A query heads in groups."""
    tokens, width = len(q), k.shape[1] // kv_heads

    def split(x: Floats) -> Floats:
        return x.reshape(tokens, -1, width).transpose(1, 0, 2)

    queries, keys, values = rotated(split(q), base), rotated(split(k), base), split(v)
    group = len(queries) // kv_heads
    keys, values = np.repeat(keys, group, axis=0), np.repeat(values, group, axis=0)
    scores = queries @ keys.transpose(0, 2, 1) / np.float32(math.sqrt(width))
    scores[:, np.triu(np.ones((tokens, tokens), dtype=bool), 1)] = -np.inf
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    mixed: Floats = (shares @ values).transpose(1, 0, 2).reshape(tokens, -1)
    return mixed


def load(path: str | Path) -> tuple[Model, Tokenizer]:
    """A model of the Llama family from a GGUF file, its matrices dequantised to float32.

    Raises ModelError for another architecture or missing, misshapen tensors; GgufError for a broken file.
    """
    metadata, index = gguf.metadata(path), gguf.index(path)
    if metadata.get("general.architecture") != "llama":
        raise ModelError(f"{path}: the architecture is {metadata.get('general.architecture')!r}, not 'llama'")

    def number(key: str, default: float | None = None) -> float:
        value = metadata.get(f"llama.{key}", default)
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ModelError(f"{path}: llama.{key} is {value!r}, not a number above 0")
        return value

    def count(key: str) -> int:
        value = number(key)
        if not isinstance(value, int):
            raise ModelError(f"{path}: llama.{key} is {value!r}, not a whole number")
        return value

    def tensor(name: str) -> Floats:
        if name not in index:
            raise ModelError(f"{path}: lacks the tensor {name!r}")
        values = gguf.dequantise(gguf.read(path, index[name]), index[name].kind)
        return values.reshape(index[name].shape)

    heads, kv_heads, layers = map(count, ("attention.head_count", "attention.head_count_kv", "block_count"))
    names = (*MATRICES, "attn_norm", "ffn_norm")
    embedding = tensor("token_embd.weight")
    blocks = tuple({name: tensor(f"blk.{i}.{name}.weight") for name in names} for i in range(layers))
    model = Model(
        heads,
        kv_heads,
        number("attention.layer_norm_rms_epsilon"),
        number("rope.freq_base", 10000.0),
        embedding,
        blocks,
        tensor("output_norm.weight"),
        tensor("output.weight") if "output.weight" in index else embedding,
    )
    _check(model, str(path))
    try:
        tokenizer = Tokenizer.of(metadata)
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from None
    if len(tokenizer.tokens) > len(embedding):
        raise ModelError(
            f"{path}: there are {len(tokenizer.tokens)} tokens, and {len(embedding)} rows of the embedding"
        )
    return model, tokenizer


def _check(model: Model, path: str) -> None:
    width = model.embedding.shape[-1]
    if model.embedding.ndim != 2 or width % (2 * model.heads) or model.heads % model.kv_heads:
        raise ModelError(f"{path}: {model.heads} and {model.kv_heads} heads do not divide a width of {width}")
    narrow = width // model.heads * model.kv_heads
    for i, block in enumerate(model.blocks):
        hidden = block["ffn_gate"].shape[0]
        wanted = {
            "attn_q": (width, width), "attn_k": (narrow, width), "attn_v": (narrow, width), "attn_norm": (width,),
            "attn_output": (width, width), "ffn_gate": (hidden, width), "ffn_up": (hidden, width),
            "ffn_down": (width, hidden), "ffn_norm": (width,),
        }  # fmt: skip
        for name, shape in wanted.items():
            if block[name].shape != shape:
                raise ModelError(f"{path}: blk.{i}.{name} is {list(block[name].shape)}, not {list(shape)}")
    if model.norm.shape != (width,) or model.output.shape != model.embedding.shape:
        raise ModelError(f"{path}: the last norm or the output has another width than the embedding")


@dataclass(frozen=True)
class Perplexity:
    """exp(mean of -ln P(token | what stands before it in its window)) over `tokens` predicted tokens."""

    perplexity: float
    tokens: int


def perplexity(
    model: Model,
    tokens: Sequence[int],
    window: int = 512,
    multiply: Multiply = plain,
    progress: Callable[[int, int], None] | None = None,
) -> Perplexity:
    """Perplexity in windows that do not overlap; the first token of each is given, not predicted.

    Raises ModelError for fewer than two tokens or a window below two.
    """
    if window < 2 or len(tokens) < 2:
        raise ModelError("perplexity needs two tokens and a window of two")
    lost, predicted = 0.0, 0
    for start in range(0, len(tokens) - 1, window):
        part = tokens[start : start + window]
        if len(part) < 2:
            break
        scores = model.logits(part, multiply)[:-1].astype(np.float64)
        top = scores.max(axis=1)
        total = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
        lost += float((total - scores[np.arange(len(part) - 1), part[1:]]).sum())
        predicted += len(part) - 1
        if progress is not None:
            progress(min(start + window, len(tokens)), len(tokens))
    return Perplexity(math.exp(lost / predicted), predicted)


def activation_norms(model: Model, tokens: Sequence[int], window: int = 512) -> dict[str, NDArray[np.float64]]:
    """||X_j||_2 of every input feature j of every matrix over calibration tokens: what `pruning.wanda` asks for."""
    squares: dict[str, NDArray[np.float64]] = {}

    def watch(name: str, weights: Floats, x: Floats) -> Floats:
        squares[name] = squares.get(name, 0) + (x.astype(np.float64) ** 2).sum(axis=0)
        return plain(name, weights, x)

    for start in range(0, len(tokens), window):
        model.logits(tokens[start : start + window], watch)
    return {name: np.sqrt(square) for name, square in squares.items()}


def pruned(model: Model, sparsity: float, norms: Mapping[str, NDArray[np.float64]] | None = None) -> Model:
    """The model with the seven matrices of every block pruned: by |W| within each matrix, or, where activation norms
    are given, by Wanda's score within each row. Embedding, output and norms stay. Raises ValueError as `pruning`."""

    def prune(name: str, weights: Floats) -> Floats:
        if norms is None:
            return pruning.magnitude(weights, sparsity)
        return pruning.wanda(weights, norms[name], sparsity)

    blocks = tuple(
        {**block, **{name: prune(f"blk.{i}.{name}", block[name]) for name in MATRICES}}
        for i, block in enumerate(model.blocks)
    )
    return replace(model, blocks=blocks)


def sample_text() -> str:
    """Real English on every machine: the language reference that Python carries for its `help()`, topics in order of
    their names. It differs between versions of Python."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))
