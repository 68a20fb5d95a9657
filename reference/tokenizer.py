"""Byte-level byte-pair encoding, as SmolLM2 and GPT-2 use it: text to token numbers and back.

A text is cut into words by a fixed pattern; the UTF-8 bytes of a word are its first symbols, each written as one
printable character; then the neighbouring pair that stands first in the list of merges is joined, until none is left.
Source: Sennrich, Haddow & Birch, arXiv 1508.07909 (merges); Radford et al. 2019, "Language Models are Unsupervised
Multitask Learners" (bytes as symbols). SmolLM2 cuts every digit off before.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any


def byte_symbols() -> dict[int, str]:
    """The printable character that stands for each byte: itself where it is one, else 256, 257, ... in order.

    >>> symbols = byte_symbols()
    >>> symbols[ord("a")], symbols[ord(" ")], len(set(symbols.values()))
    ('a', 'Ġ', 256)
    """
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in kept]
    return {byte: chr(byte) for byte in kept} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def words(text: str) -> Iterator[str]:
    """The pieces that are encoded one by one; joined they are the text.

    Every number character stands alone. What is between is cut as GPT-2 does: contractions, letters with one leading
    space, other characters with one leading space, white space without the space that belongs to the next word.

    >>> list(words("It's 42 tokens,  isn't it?"))
    ['It', "'s", ' ', '4', '2', ' tokens', ',', ' ', ' isn', "'t", ' it', '?']
    """
    unusual = {character: unicodedata.category(character)[0] for character in set(text) if not character.isascii()}
    kinds = {"L": "a-zA-Z", "N": "0-9"}
    letters, numbers = (
        kinds[kind] + "".join(re.escape(c) for c, found in sorted(unusual.items()) if found == kind) for kind in "LN"
    )
    pattern = re.compile(rf"'s|'t|'re|'ve|'m|'ll|'d| ?[{letters}]+| ?[^\s{letters}{numbers}]+|\s+(?!\S)|\s+")
    for piece in re.split(f"([{numbers}])", text):
        yield from pattern.findall(piece) or ([piece] if piece else [])


@dataclass(frozen=True)
class Tokenizer:
    """tokens: the text of every token number, in byte symbols; merges: pairs in the order in which they are joined."""

    tokens: Sequence[str]
    merges: Sequence[tuple[str, str]]

    @staticmethod
    def of(metadata: Mapping[str, Any]) -> Tokenizer:
        """From the metadata of a GGUF file. Raises ValueError where it holds no byte-level encoding."""
        if metadata.get("tokenizer.ggml.model") != "gpt2":
            raise ValueError(f"the file's tokenizer is {metadata.get('tokenizer.ggml.model')!r}, not byte-level (gpt2)")
        tokens, merges = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.merges")
        if not isinstance(tokens, list) or not isinstance(merges, list):
            raise ValueError("the file lacks the list of tokens or of merges")
        pairs = [tuple(str(merge).split(" ")) for merge in merges]
        if not all(len(pair) == 2 for pair in pairs):
            raise ValueError("a merge is not two symbols")
        return Tokenizer([str(token) for token in tokens], [(a, b) for a, b in pairs])

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.tokens)}

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        return {pair: rank for rank, pair in enumerate(self.merges)}

    def encode(self, text: str) -> list[int]:
        """The token numbers of a text (control tokens are not looked for). Raises ValueError for a byte without token.

        >>> letters = list(byte_symbols().values())
        >>> Tokenizer([*letters, "ab", "abc"], [("a", "b"), ("ab", "c")]).encode("abcab")
        [257, 256]
        """
        symbols, known = byte_symbols(), dict[str, list[int]]()
        numbers: list[int] = []
        for word in words(text):
            if word not in known:
                joined = self._join([symbols[byte] for byte in word.encode()])
                missing = [symbol for symbol in joined if symbol not in self._numbers]
                if missing:
                    raise ValueError(f"no token for {missing[0]!r}")
                known[word] = [self._numbers[symbol] for symbol in joined]
            numbers += known[word]
        return numbers

    def decode(self, numbers: Sequence[int]) -> str:
        """The text of token numbers; bytes that are no UTF-8 become U+FFFD."""
        back = {symbol: byte for byte, symbol in byte_symbols().items()}
        return bytes(back[c] for number in numbers for c in self.tokens[number]).decode(errors="replace")

    def _join(self, symbols: list[str]) -> list[str]:
        while len(symbols) > 1:
            ranks = [self._ranks.get(pair, len(self._ranks)) for pair in pairwise(symbols)]
            best = min(range(len(ranks)), key=ranks.__getitem__)
            if ranks[best] == len(self._ranks):
                break
            symbols = [*symbols[:best], symbols[best] + symbols[best + 1], *symbols[best + 2 :]]
        return symbols
