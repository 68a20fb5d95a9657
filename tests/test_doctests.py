"""Every example in a docstring runs."""

import doctest
import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import loadsparse.cli
import loadsparse.gpu
import loadsparse.reference
import loadsparse.theory


def modules() -> Iterator[str]:
    for package in (loadsparse.reference, loadsparse.gpu, loadsparse.theory, loadsparse.cli):
        yield package.__name__
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not found.name.endswith("__main__"):
                yield found.name


@pytest.mark.parametrize("name", list(modules()))
def test_docstring_examples(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.failed == 0
