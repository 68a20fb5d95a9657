"""printf: the text that a kernel prints, from the memory of a thread."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable

Read = Callable[[int, int], bytes]
"""(generic address, bytes) -> what is there; fewer at the end of an allocation."""
MOST_PRINTED = 2**20
"""Characters of a launch's output that are kept: as many as CUDA's buffer holds by default."""
_FORMAT = re.compile(r"%([-+ #0]*)(\*|\d+)?(?:\.(\*|\d*))?(hh|h|ll|l|z|j|t)?([diouxXeEfFgGaAcsp%])")


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
            given = struct.unpack("<i", self.take(4))[0]
            flags, width = flags + "-" * (given < 0), str(abs(given))
        if precision == "*":
            given = struct.unpack("<i", self.take(4))[0]
            precision = str(given) if given >= 0 else None
        width = (width or "")[:3]
        least = None if precision is None else int(precision[:3] or "0")
        places = "" if least is None else f".{least}"
        if letter in "eEfFgGaA":
            value: float = struct.unpack("<d", self.take(8))[0]
            if not math.isfinite(value):
                flags = flags.replace("0", "")
            if letter in "aA" and math.isfinite(value):
                return _padded(_hexadecimal(value, letter), flags, width)
            return str(("%" + flags + width + places + letter.replace("a", "f").replace("A", "F")) % value)
        if letter == "s":
            address = int.from_bytes(self.take(8), "little")
            return ("%" + flags + width + places + "s") % (string_at(self.read, address) if address else "(null)")
        if letter == "p":
            return hex(int.from_bytes(self.take(8), "little"))
        if letter == "c":
            return ("%" + flags + width + "c") % chr(self.take(4)[0])
        size = 8 if length in ("l", "ll", "z", "j", "t") else 4
        data = self.take(size)[: {"hh": 1, "h": 2}.get(length)]
        number = int.from_bytes(data, "little", signed=letter in "di")
        return _integer(number, letter, flags, width, least)


def _integer(number: int, letter: str, flags: str, width: str, least: int | None) -> str:
    """An integer of at least so many digits, as C writes it."""
    digits = format(abs(number), letter if letter in "oxX" else "d")
    if least is not None:
        digits = digits.rjust(least, "0") if number or least else ""
        flags = flags.replace("0", "")
    prefix = ""
    if letter in "di":
        prefix = "-" if number < 0 else "+" if "+" in flags else " " if " " in flags else ""
    elif "#" in flags and letter in "xX" and number:
        prefix = "0" + letter
    elif "#" in flags and letter == "o" and digits[:1] != "0":
        digits = "0" + digits
    if "0" in flags and "-" not in flags and width:
        digits = digits.rjust(int(width) - len(prefix), "0")
    return _padded(prefix + digits, flags, width)


def _hexadecimal(value: float, letter: str) -> str:
    """A finite number with as few digits as it needs (a precision is not looked at)."""
    text = re.sub(r"\.?0*p", "p", value.hex())
    return text if letter == "a" else text.upper()


def _padded(text: str, flags: str, width: str) -> str:
    return f"{text:{'<' if '-' in flags else '>'}{width or '0'}}"


def render(read: Read, text: int, arguments: int) -> tuple[str, int]:
    """printf(format, arguments), both generic addresses: the text, and how many arguments it took."""
    values = _Arguments(read, arguments)
    return _FORMAT.sub(values.show, string_at(read, text)), values.taken
