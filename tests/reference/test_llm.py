"""The decoder against a scalar one written from its equations, and against what llama.cpp says of SmolLM2."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import gguf_files
import numpy as np
import pytest

from loadsparse.reference import gguf, llm, weights

SMOLLM2 = weights.cache_folder() / Path(weights.DOWNLOADS["smollm2"].member).name


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[llm.Model, llm.Tokenizer]:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(gguf_files.tiny_model())
    return llm.load(path)


def scalar_logits(tensors: dict[str, np.ndarray], tokens: list[int]) -> np.ndarray:
    """The equations in float64, a token and a head at a time; rotations as 2 x 2 matrices."""
    w = {name: values.astype(np.float64) for name, values in tensors.items()}
    size = gguf_files.WIDTH // gguf_files.HEADS

    def norm(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
        return x / math.sqrt(sum(v * v for v in x) / len(x) + 1e-5) * gain

    def turn(head: np.ndarray, position: int) -> np.ndarray:
        out = np.empty_like(head)
        for i in range(0, size, 2):
            angle = position * 100.0 ** (-i / size)
            c, s = math.cos(angle), math.sin(angle)
            out[i : i + 2] = np.array([[c, -s], [s, c]]) @ head[i : i + 2]
        return out

    x = [w["token_embd.weight"][token] for token in tokens]
    for layer in range(gguf_files.LAYERS):
        block = {name.split(".")[2]: values for name, values in w.items() if name.startswith(f"blk.{layer}.")}
        normed = [norm(row, block["attn_norm"]) for row in x]
        for t in reversed(range(len(tokens))):
            mixed = []
            for head in range(gguf_files.HEADS):
                shared = head // (gguf_files.HEADS // gguf_files.KV_HEADS)
                mine, theirs = (slice(n * size, n * size + size) for n in (head, shared))
                query = turn(block["attn_q"][mine] @ normed[t], t)
                scores = [query @ turn(block["attn_k"][theirs] @ normed[u], u) / math.sqrt(size) for u in range(t + 1)]
                shares = [math.exp(score) for score in scores]
                mixed.append(sum(p * (block["attn_v"][theirs] @ normed[u]) for u, p in enumerate(shares)) / sum(shares))
            x[t] = x[t] + block["attn_output"] @ np.concatenate(mixed)
        for t, row in enumerate(x):
            m = norm(row, block["ffn_norm"])
            gate = block["ffn_gate"] @ m
            x[t] = row + block["ffn_down"] @ (gate / (1 + np.exp(-gate)) * (block["ffn_up"] @ m))
    return np.array([w["token_embd.weight"] @ norm(row, w["output_norm.weight"]) for row in x])


def test_logits_equal_the_scalar_decoder(tiny: tuple[llm.Model, llm.Tokenizer]) -> None:
    model, tokenizer = tiny
    tokens = tokenizer.encode("than the anthem")
    expected = scalar_logits(gguf_files.tiny_tensors(0), tokens)
    found = model.logits(tokens)
    assert found.dtype == np.float32
    # float32 sums of at most 48 terms, two blocks deep: far above rounding, far below any other model
    assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()
    assert np.abs(found - scalar_logits(gguf_files.tiny_tensors(1), tokens)).max() > 0.1


def test_the_past_does_not_see_the_future(tiny: tuple[llm.Model, llm.Tokenizer]) -> None:
    model, _ = tiny
    tokens = list(range(40, 60))
    whole = model.logits(tokens)
    for length in (1, 7, 19):
        assert np.allclose(model.logits(tokens[:length]), whole[:length], rtol=0, atol=1e-5)


def test_perplexity_by_hand(tiny: tuple[llm.Model, llm.Tokenizer]) -> None:
    model, _ = tiny
    blind = dataclasses.replace(model, output=np.zeros_like(model.output))
    assert llm.perplexity(blind, [1, 2, 3, 4, 5], window=3) == llm.Perplexity(pytest.approx(260), 3)
    tokens = list(range(30, 41))
    lost = []
    for start in (0, 4, 8):
        part = tokens[start : start + 4]
        p = np.exp(model.logits(part).astype(np.float64))
        p /= p.sum(axis=1, keepdims=True)
        lost += [-math.log(p[t, part[t + 1]]) for t in range(len(part) - 1)]
    judged = llm.perplexity(model, tokens, window=4)
    assert judged.tokens == len(lost) == 8
    assert judged.perplexity == pytest.approx(math.exp(sum(lost) / 8), rel=1e-12)
    for tokens, window in (([1], 4), ([1, 2], 1)):
        with pytest.raises(llm.ModelError, match="two tokens"):
            llm.perplexity(model, tokens, window)
    for wrong in ([], [260], [-1]):
        with pytest.raises(llm.ModelError, match="tokens are one or more numbers"):
            model.logits(wrong)


def test_norms_are_those_of_the_inputs_and_prune_by_wanda(tiny: tuple[llm.Model, llm.Tokenizer]) -> None:
    model, _ = tiny
    tokens = list(range(20, 44))
    norms = llm.activation_norms(model, tokens, window=24)
    assert set(norms) == {f"blk.{i}.{name}" for i in range(2) for name in llm.MATRICES}
    first = llm.rms(model.embedding[tokens], model.blocks[0]["attn_norm"], model.epsilon)
    assert np.allclose(norms["blk.0.attn_q"], np.linalg.norm(first, axis=0), rtol=1e-5)
    by_size, by_wanda = llm.pruned(model, 0.75), llm.pruned(model, 0.75, norms)
    for one, other, before in zip(by_size.blocks, by_wanda.blocks, model.blocks, strict=True):
        for name in llm.MATRICES:
            assert (one[name] == 0).mean() == (other[name] == 0).mean() == 0.75
            kept = other[name] != 0
            assert (other[name][kept] == before[name][kept]).all()
        assert (one["attn_norm"] == before["attn_norm"]).all()
    assert any((a["ffn_down"] != b["ffn_down"]).any() for a, b in zip(by_size.blocks, by_wanda.blocks, strict=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gguf_files.tiny_model(architecture="mamba"), "architecture is 'mamba'"),
        (gguf_files.tiny_model(head_count=0), "head_count is 0"),
        (gguf_files.tiny_model(head_count=5), "do not divide"),
        (gguf_files.tiny_model(head_count_kv=3), "do not divide"),
        (gguf_files.tiny_model(head_count=0.5), "head_count is 0.5"),
        (gguf_files.tiny_model(block_count=float("inf")), "block_count is inf"),
        (gguf_files.tiny_model(layer_norm_rms_epsilon=float("nan")), "epsilon is nan"),
        (gguf_files.tiny_model(freq_base="fast"), "freq_base is 'fast'"),
        (gguf_files.tiny_model(tokens=[*gguf_files.TOKENS, "more"]), "261 tokens.* 260 rows"),
        (gguf_files.tiny_model(head_count_kv=1), "attn_k is"),
        (gguf_files.tiny_model(block_count=3), "lacks the tensor 'blk.2"),
        (gguf_files.tiny_model(without="output_norm.weight"), "lacks the tensor 'output_norm"),
        (gguf_files.tiny_model(model="llama"), "not byte-level"),
        (gguf_files.tiny_model(merges=["one"]), "two symbols"),
        (gguf_files.tiny_model()[:3000], "truncated"),
    ],
)
def test_files_that_hold_no_such_model(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises((llm.ModelError, gguf.GgufError), match=message) as caught:
        llm.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not SMOLLM2.exists(), reason="needs `loadsparse weights fetch smollm2` (98 MB) once")
def test_smollm2_as_llama_cpp_runs_it() -> None:
    """Tokens and next-token probabilities that llama.cpp (node-llama-cpp 3.22.1) gave for this file.

    It rounds the inputs of each product to 8 bits, so probabilities agree to a few percent, not to the bit.
    """
    model, tokenizer = llm.load(SMOLLM2)
    text = "The capital of France is Paris. In 1987, there were 12345 people's houses!\n\n"
    text += "  def f(x):\n\treturn x**2  # café naïve"
    tokens = tokenizer.encode(text)
    assert tokens == [
        504, 3575, 282, 4649, 314, 7042, 30, 533, 216, 33, 41, 40, 39, 28, 665, 592, 216, 33, 34, 35, 36, 37, 701, 506,
        6648, 17, 8866, 753, 275, 24, 104, 727, 198, 197, 5406, 1792, 828, 34, 216, 907, 37366, 15486, 46494,
    ]  # fmt: skip
    assert tokenizer.decode(tokens) == text
    logits = model.logits(tokens[:7]).astype(np.float64)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    said = {1: (282, 0.7328), 3: (314, 0.6244), 4: (7042, 0.7800), 5: (30, 0.6709), 0: (29, 0.4058)}
    for position, (token, probability) in said.items():
        assert p[position].argmax() == token
        assert p[position, token] == pytest.approx(probability, abs=0.03)
