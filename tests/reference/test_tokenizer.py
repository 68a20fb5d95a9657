"""Byte-pair encoding against a second way to apply merges, and against what llama.cpp says of SmolLM2's."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadsparse.reference.tokenizer import Tokenizer, byte_symbols, words

TEXTS = st.text(st.one_of(st.sampled_from("aab  cé's\n\t12²Ⅷ٣中_-!"), st.characters(codec="utf-8")), max_size=40)


def learned(seed: int, count: int = 60) -> Tokenizer:
    """Merges as they are learned: the most frequent pair of a random corpus, again and again."""
    rng = np.random.default_rng(seed)
    corpus = [[byte_symbols()[b] for b in w.encode()] for w in rng.choice(["aba", "cabab", " the", "é's", "bca"], 40)]
    merges: list[tuple[str, str]] = []
    for _ in range(count):
        pairs = [pair for word in corpus for pair in pairwise(word)]
        if not pairs:
            break
        merges.append(max(set(pairs), key=lambda pair: (pairs.count(pair), pair)))
        corpus = [applied(word, merges[-1]) for word in corpus]
    return Tokenizer([*byte_symbols().values(), *(a + b for a, b in merges)], merges)


def applied(word: list[str], pair: tuple[str, str]) -> list[str]:
    found: list[str] = []
    for symbol in word:
        if found and (found[-1], symbol) == pair:
            found[-1] += symbol
        else:
            found.append(symbol)
    return found


@given(TEXTS)
def test_words_join_to_the_text(text: str) -> None:
    pieces = list(words(text))
    assert "".join(pieces) == text
    for piece in pieces:
        assert piece
        assert len(piece) == 1 or not any(c.isnumeric() and not c.isalpha() for c in piece)
        assert re.fullmatch(r" ?\S+|\s+", piece)


@settings(max_examples=40)
@given(TEXTS, st.integers(0, 5))
def test_encoding_equals_the_merges_one_after_the_other(text: str, seed: int) -> None:
    tokenizer = learned(seed)
    expected: list[str] = []
    for word in words(text):
        symbols = [byte_symbols()[byte] for byte in word.encode()]
        for pair in tokenizer.merges:
            symbols = applied(symbols, pair)
        expected += symbols
    found = tokenizer.encode(text)
    assert [tokenizer.tokens[number] for number in found] == expected
    assert tokenizer.decode(found) == text


def test_what_is_no_byte_encoding_is_refused() -> None:
    whole = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.merges": ["a a"]}
    for fault, message in (
        ({"tokenizer.ggml.model": "llama"}, "not byte-level"),
        ({"tokenizer.ggml.merges": 7}, "lacks the list"),
        ({"tokenizer.ggml.merges": ["a b c"]}, "two symbols"),
    ):
        with pytest.raises(ValueError, match=message):
            Tokenizer.of(whole | fault)
    with pytest.raises(ValueError, match="no token for 'b'"):
        Tokenizer.of(whole).encode("b")
