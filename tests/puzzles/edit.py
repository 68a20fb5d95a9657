"""Wrong answers as edits of the right one: a change that does not apply is an error."""

from pathlib import Path

SOLUTIONS = Path(__file__).parent / "solutions"


def edited(stem: str, *changes: tuple[str, str]) -> str:
    text = (SOLUTIONS / f"{stem}.py").read_text()
    for old, new in changes:
        assert old in text, f"{stem}: no {old!r}"
        text = text.replace(old, new)
    return text
