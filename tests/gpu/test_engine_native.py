"""The run-time's Python subset, and the cache of machine code."""

import ctypes
import sys
import types

import pytest

from loadsparse.gpu.simulator.engine import cache, jit, native

SOURCE = '''
from loadsparse.gpu.simulator.engine.native import copy, ctz, inline, load8, load32, lshr, popcount, store32, ult

LIMIT = 5

@inline
def square(a: int) -> int:
    return a * a

def gcd(a: int, b: int) -> int:
    """Euclid."""
    while b != 0:
        rest = a % b
        a = b
        b = rest
    return a

def primes(below: int) -> int:
    found = 0
    for i in range(2, below):
        good = 1
        for j in range(2, i):
            if square(j) > i:
                break
            if i % j == 0:
                good = 0
                break
        if good == 0:
            continue
        found += good
    return found if found > LIMIT and below > 3 else -found

def bits(a: int, b: int) -> int:
    return (popcount(a) << 16) | (ctz(a) << 8) | (ult(a, b) << 1) | (lshr(a, 63) if a < 0 or b == 3 else 0)

def reverse(place: int, count: int) -> int:
    for i in range(0, count // 2):
        a = load32(place + 4 * i)
        store32(place + 4 * i, load32(place + 4 * (count - 1 - i)))
        store32(place + 4 * (count - 1 - i), a)
    return load8(place)
'''


@pytest.fixture
def module_of(tmp_path):
    def build(source, name="subset_under_test"):
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        module = types.ModuleType(name)
        module.__file__ = str(path)
        sys.modules[name] = module
        exec(compile(source, str(path), "exec"), module.__dict__)
        return module

    yield build
    sys.modules.pop("subset_under_test", None)


def test_functions_compute_what_python_computes(module_of):
    module = module_of(SOURCE)
    text = native.DECLARATIONS + native.translate([module], "t_")
    names = tuple(f"t_{name}" for name in native.exported([module]))
    assert "t_square" not in names
    loaded = jit.Loaded(jit.compile_object(text), {}, names)

    def call(name, *arguments):
        return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(arguments))(loaded.addresses[name])(*arguments)

    assert call("t_gcd", 84, 36) == 12
    assert (call("t_primes", 100), call("t_primes", 10)) == (25, -4)
    assert call("t_bits", 12, 13) == (2 << 16) | (2 << 8) | 2
    assert call("t_bits", -8, 3) == (61 << 16) | (3 << 8) | 1
    data = (ctypes.c_uint32 * 5)(1, 2, 3, 4, 5)
    assert call("t_reverse", ctypes.addressof(data), 5) == 5
    assert list(data) == [5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    "body",
    [
        "return [a]",
        "return a ** 2",
        "return missing(a)",
        "return a < 1 < 2",
        "with a: return 1",
        "return 1.5",
        "return a is a",
    ],
)
def test_everything_else_is_refused(module_of, body):
    module = module_of(f"def f(a: int) -> int:\n    {body}\n")
    with pytest.raises(TypeError, match="f: "):
        native.translate([module], "t_")


def test_cache_ignores_what_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("LOADSPARSE_CACHE", str(tmp_path / "code"))
    text = "define i64 @answer() {\n  ret i64 42\n}\n"
    image = cache.compiled("test", lambda: text)
    (stored,) = (tmp_path / "code").iterdir()
    assert cache.load(stored.name) == image
    for damaged in (stored.read_bytes()[:-1], b"", b"\0" + stored.read_bytes()[1:]):
        stored.write_bytes(damaged)
        assert cache.load(stored.name) is None
    assert cache.compiled("test", lambda: text) == image
    assert cache.load(stored.name) == image
    assert [path.name for path in (tmp_path / "code").iterdir()] == [stored.name]


def test_cache_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("LOADSPARSE_CACHE", "")
    assert cache.directory() is None
    assert cache.load("kernel-x") is None
    cache.save("kernel-x", b"code")


def test_key_changes_with_every_part():
    assert len({cache.key("a", "b"), cache.key("ab"), cache.key("a"), cache.key("b", "a")}) == 4
