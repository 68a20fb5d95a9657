"""Bad input: one line that says what is wrong and how to mend it."""

from __future__ import annotations


class InputError(ValueError):
    """The caller's input cannot be judged; the message is one line with cause and mend (exit code 2)."""
