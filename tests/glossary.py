"""Links each glossary term at its first use in every tutorial.

python tests/glossary.py     rewrites the scripts whose links are missing (then `make notebooks`)

A term is a heading `### name, other spelling` of tutorials/glossary.md.  Its first use is the first match in running
text: not in headings, tables, code, formulas or other links.
"""

import re
from dataclasses import dataclass
from pathlib import Path

TUTORIALS = Path(__file__).parents[1] / "tutorials"
SKIPPED = re.compile(  # the text of a link may be broken over two lines
    r"`[^`]*`|!?\[[^\]]*\]\([^)]*\)|\[[^\]]*$|^[^\[\]]*\]\([^)]*\)|\$[^$]*\$|<[^>]*>|https?://\S+"
)


@dataclass(frozen=True)
class Term:
    """Spellings of one entry, and the anchor of its heading."""

    spellings: tuple[str, ...]
    anchor: str

    @property
    def pattern(self) -> re.Pattern[str]:
        """Any spelling as a whole word, with a plural s."""
        words = "|".join(re.escape(spelling) for spelling in sorted(self.spellings, key=len, reverse=True))
        return re.compile(rf"(?<![\w./-])(?:{words})(?:s|es)?(?![\w-])", re.IGNORECASE)


def anchor(heading: str) -> str:
    """The anchor that forges and Jupyter give a heading."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def terms(text: str | None = None) -> list[Term]:
    """The entries of the glossary, longest spelling first, so that "bank conflict" comes before "bank"."""
    text = (TUTORIALS / "glossary.md").read_text() if text is None else text
    headings = re.findall(r"^### (.+)$", text, re.MULTILINE)
    found = [Term(tuple(name.strip() for name in heading.split(",")), anchor(heading)) for heading in headings]
    return sorted(found, key=lambda term: -max(map(len, term.spellings)))


def link_line(line: str, wanted: list[Term]) -> tuple[str, list[Term]]:
    """The line with the first use of each wanted term linked, and the terms that were."""
    used = []
    for term in wanted:
        covered = [match.span() for match in SKIPPED.finditer(line)]
        for match in term.pattern.finditer(line):
            if all(match.end() <= start or match.start() >= end for start, end in covered):
                line = f"{line[: match.start()]}[{match[0]}](glossary.md#{term.anchor}){line[match.end() :]}"
                used.append(term)
                break
    return line, used


def linked(script: str, entries: list[Term]) -> str:
    """The text of a percent script with its glossary links as they should be."""
    present = re.compile(r"\[([^\]]*)\]\(glossary\.md#[^)]*\)")
    wanted, lines, markdown, formula = list(entries), [], False, False
    for line in script.splitlines():
        if line.startswith("# %%"):
            markdown = "[markdown]" in line
        elif markdown and line.startswith("# "):
            formula ^= line.count("$$") % 2 == 1
            line = present.sub(r"\1", line)
            if not formula and "$$" not in line and not line.startswith(("# #", "# |", "# *")):
                line, used = link_line(line, wanted)
                wanted = [term for term in wanted if term not in used]
        lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for path in sorted(TUTORIALS.glob("[0-9]*.py")):
        before = path.read_text()
        after = linked(before, terms())
        if after != before:
            path.write_text(after)
            print(path.name)
