"""printf: the text that a kernel prints, from the memory of a thread."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

Read = Callable[[int, int], bytes]
"""(generic address, bytes) -> what is there; fewer at the end of an allocation."""
MOST_PRINTED = 2**20
"""Characters of a launch's output that are kept: as many as CUDA's buffer holds by default."""
_FORMAT = re.compile(r"%([-+ #0]*)(\*|\d+)?(?:\.(\*|\d+))?(hh|h|ll|l|z|j|t)?([diouxXeEfFgGaAcsp%])")


def string_at(read: Read, address: int) -> str:
    """The text that ends with the first zero byte."""
    return read(address, 4096).split(b"\0", 1)[0].decode("utf-8", "replace")


class _Arguments:
    """Values of a printf: 4 bytes, or 8 bytes aligned to 8."""

    def __init__(self, read: Read, address: int) -> None:
        self.read, self.address = read, address
        self.position = self.taken = 0

    def take(self, size: int) -> bytes:
        self.taken += 1
        self.position = -(-self.position // size) * size
        data = self.read(self.address + self.position, size)
        self.position += size
        return data.ljust(size, b"\0")

    def show(self, match: re.Match[str]) -> str:
        """One conversion."""
        flags, width, precision, length, letter = match.groups()
        if letter == "%":
            return "%"
        if width == "*":
            width = str(struct.unpack("<i", self.take(4))[0])
        if precision == "*":
            given = struct.unpack("<i", self.take(4))[0]
            precision = str(given) if given >= 0 else None
        spec = "%" + flags + (width or "")[:3] + ("." + precision[:3] if precision is not None else "")
        if letter in "eEfFgGaA":
            value: float = struct.unpack("<d", self.take(8))[0]
            return str((spec + letter) % value if letter not in "aA" else value.hex())
        if letter == "s":
            address = int.from_bytes(self.take(8), "little")
            return (spec + "s") % (string_at(self.read, address) if address else "(null)")
        if letter == "p":
            return hex(int.from_bytes(self.take(8), "little"))
        if letter == "c":
            return (spec + "c") % chr(self.take(4)[0])
        size = 8 if length in ("l", "ll", "z", "j", "t") else 4
        data = self.take(size)[: {"hh": 1, "h": 2}.get(length)]
        number = int.from_bytes(data, "little", signed=letter in "di")
        return str((spec + {"u": "d", "i": "d"}.get(letter, letter)) % number)


def render(read: Read, text: int, arguments: int) -> tuple[str, int]:
    """printf(format, arguments), both generic addresses: the text, and how many arguments it took."""
    values = _Arguments(read, arguments)
    return _FORMAT.sub(values.show, string_at(read, text)), values.taken
