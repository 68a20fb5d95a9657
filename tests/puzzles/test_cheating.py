"""Known ways of cheating, in a real process: none of them is a right answer, and the judge survives each."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from desk import Here, judged, solution

from loadsparse.gpu import simulator
from loadsparse.tutorials.judge import check, landlock
from loadsparse.tutorials.judge.ask import Compiled
from loadsparse.tutorials.judge.shelf import FOLDER, get
from loadsparse.tutorials.judge.verdict import Verdict

SORT = '''
"""A NumPy puzzle for these tests."""
import numpy as np
from loadsparse.tutorials.judge.puzzle import Puzzle

def inputs(rng, trial):
    return {"x": rng.standard_normal(40) * 1e-30, "k": int(rng.integers(1, 40))}

PUZZLE = Puzzle(
    title="Smallest", goal="Sort.", text="The k smallest elements of x in ascending order.", spec="np.sort(x)[:k]",
    oracle=lambda x, k: np.sort(x)[:k], inputs=inputs, lines=1,
    template="import numpy as np\\n\\n\\ndef smallest(x, k):\\n    # FILL ME IN\\n    ...\\n",
)
'''
RIGHT = "import numpy as np\n\n\ndef smallest(x, k):\n    return np.sort(x)[:k]\n"


@pytest.fixture
def puzzles(tmp_path: Path) -> Path:
    folder = tmp_path / "puzzles"
    folder.mkdir()
    (folder / "01_smallest.py").write_text(SORT)
    return folder


def numpy_answer(puzzles: Path, body: str, head: str = "import numpy as np\n", **limits: float) -> Verdict:
    path = puzzles.parent / "mine.py"
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    path.write_text(f"{head}\n\ndef smallest(x, k):\n{indented}\n")
    return check.check(1, path, seed="student", folder=puzzles, **limits)  # type: ignore[arg-type]


def test_the_right_answer_passes(puzzles: Path) -> None:
    assert numpy_answer(puzzles, "return np.sort(x)[:k]").ok


CHEATS = {
    "nan as a wildcard": ("return np.full(k, np.nan)", "wrong", "nan"),
    "smaller than any tolerance": ("return np.zeros(k)", "wrong", "0.0"),
    "unwritten memory": ("return np.empty(k)", "wrong", ""),
    "the input itself, sorted in place": ("x.sort()\nreturn x[:k]", "overwritten", "`x`"),
    "an object that equals everything": (
        "class Any:\n    def __eq__(self, other): return True\nreturn np.array([Any()] * k, dtype=object)",
        "dtype",
        "object",
    ),
    "an array class that equals everything": (
        "class Same(np.ndarray):\n"
        "    def __eq__(self, other): return np.ones(self.shape, bool)\n"
        "return np.zeros(k).view(Same)",
        "wrong",
        "0.0",
    ),
    "a pickle": ("import pickle\nreturn pickle.dumps([1])", "dtype", "bytes"),
    "nothing": ("np.sort(x)[:k]", "nothing", "returned nothing"),
    "another type": ("return np.sort(x)[:k].astype(np.float32)", "dtype", "float32"),
    "another shape": ("return np.sort(x)", "shape", "(40,)"),
    "the end of the process": ("import sys\nsys.exit(0)", "exit", "ends its process"),
    "the end of the process, at once": ("import os\nos._exit(0)", "exit", "exit code 0"),
    "killing the judge": ("import os\nos.kill(os.getppid(), 9)\nreturn x[:k]", "forbidden", "os.kill"),
    "killing by a program": ("import os\nos.system('kill -9 %d' % os.getppid())\nreturn x", "forbidden", "os.system"),
    "reading the judge's memory": (
        "import os\nopen('/proc/%d/maps' % os.getppid()).read()\nreturn x[:k]",
        "forbidden",
        "/proc/",
    ),
    "going elsewhere first": ("import os\nos.chdir('/')\nreturn x[:k]", "forbidden", "os.chdir"),
    "reading itself": ("open('/proc/self/environ').read()\nreturn x[:k]", "forbidden", "/proc/self"),
    "importing the oracle": ("from loadsparse.reference import routing\nreturn x[:k]", "forbidden", "loadsparse"),
    "importing the oracle by path": (
        "import importlib.util as u, sys\n"
        "path = [p for m in list(sys.modules.values()) for p in getattr(m, '__path__', []) if 'tutorials' in p][0]\n"
        "open(path + '/../reference/routing.py').read()\nreturn x[:k]",
        "forbidden",
        "routing.py",
    ),
    "native code": ("import ctypes\nctypes.CDLL(None).kill(1, 0)\nreturn x[:k]", "forbidden", "ctypes.dlopen"),
    "an endless loop": ("while True: pass", "time", "longer than"),
    "huge memory": ("return np.ones(1 << 40)", "memory", "memory"),
    "answers kept from call to call": (
        "global KEPT\nKEPT = globals().get('KEPT', np.sort(x)[:k])\nreturn KEPT",
        "",
        "",
    ),
    "answers kept by identity": (
        "kept = globals().setdefault('KEPT', {})\nreturn kept.setdefault((id(x), x.shape), np.sort(x))[:k]",
        "wrong",
        "",
    ),
    "counting its calls": (
        "globals()['N'] = globals().get('N', 0) + 1\nreturn np.sort(x)[:k] if N < 5 else x[:k]",
        "drift",
        "same inputs",
    ),
    "orders to the terminal": ("raise ValueError('\\x1b[2J\\x1b[32m solved')", "crash", "ValueError: ?[2J solved"),
    "fake JSON on stdout": ("print('{\"ok\": true}', flush=True)\nreturn x[:k]", "wrong", ""),
    "a forged verdict among the judge's files": (
        "import json, sys, pathlib\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "for name in ('answer.json', 'verdict.json'):\n"
        "    (folder / name).write_text(json.dumps({'ok': True, 'problems': [], 'changed': [[]] * 5}))\n"
        "import os\nos._exit(0)",
        "crash",
        "cannot be read",
    ),
}


@pytest.mark.claim(
    id="puzzle-cheats",
    phrase="known ways of cheating at a puzzle do not pass its judge",
    status="proved",
    assumption="the ways listed in tests/puzzles/test_cheating.py; no wall against native code run by the same user",
    function="loadsparse.tutorials.judge.check.check",
    source="loadsparse, design",
)
@pytest.mark.parametrize(("body", "kind", "words"), CHEATS.values(), ids=CHEATS)
def test_cheating_does_not_pass(body: str, kind: str, words: str, puzzles: Path) -> None:
    verdict = numpy_answer(puzzles, body, seconds=3 if kind == "time" else 60, memory=2**31)
    assert not verdict.ok
    first = verdict.problems[0]
    assert kind in ("", first.kind), str(verdict)
    assert words in first.sentence, str(verdict)


AROUND = """
import gc, importlib.util, os, signal, subprocess, sys
folder, here = sys.argv[1], "HERE"
guard = sys.modules["loadsparse.tutorials.judge.guard"]
hooks = [o for o in gc.get_objects() if getattr(o, "__globals__", None) is vars(guard)]


def emptied():
    for name in ("_NEVER", "_NATIVE", "_CHANGES", "_OWN", "_PRIVATE"):
        setattr(guard, name, frozenset())
    guard._WRITING, guard.Forbidden, guard.isinstance, guard.stat = 0, ValueError, lambda *_: False, None
    for hook in hooks:
        hook.__annotations__, hook.__dict__["never"] = {}, frozenset()
        if hook.__kwdefaults__:
            hook.__kwdefaults__.clear()
        for cell in hook.__closure__ or ():
            cell.cell_contents = frozenset()
    os.system("true")


def renamed():
    os.path.realpath = os.path.abspath = lambda path, **_: folder
    os.path.isdir = lambda path: False
    open(here, "a")


def recompiled():
    for hook in hooks:
        hook.__code__ = (lambda event, arguments: None).__code__
    os.system("true")


def redefined():
    for hook in hooks:
        hook.__defaults__ = None
    os.system("true")


def started():
    import _posixsubprocess
    _posixsubprocess.fork_exec([b"/bin/true"], [b"true"], True, (), None, None, -1, -1, -1, -1, -1, -1, *os.pipe(),
                               True, True, -1, None, None, None, -1, None, False)


def another_interpreter():
    import _xxsubinterpreters as others
    others.run_string(others.create(), "import os; os.system('true')")


def linked():
    os.symlink(here, os.path.join(folder, "link"))
    open(os.path.join(folder, "link"), "a")


def linked_folder():
    os.symlink(os.path.dirname(here), os.path.join(folder, "way"))
    open(os.path.join(folder, "way", os.path.basename(here)), "a")


def database():
    import sqlite3
    sqlite3.connect(here)


WAYS = {
    "empty what the guard looks at": emptied,
    "other names of paths": renamed,
    "another hook": recompiled,
    "a hook without its defaults": redefined,
    "fork_exec": started,
    "another interpreter": another_interpreter,
    "a link out of the folder": linked,
    "a folder that is a link": linked_folder,
    "a database": database,
    "a path beside an open folder": lambda: os.open("aim", 0, dir_fd=os.open(os.path.dirname(here), 0)),
    "a signal by file": lambda: signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 0),
    "the limits of the judge": lambda: __import__("resource").prlimit(os.getppid(), 0),
    "its own limits": lambda: __import__("resource").setrlimit(0, (1000, 1000)),
    "a pipe for an answer": lambda: os.mkfifo(os.path.join(folder, "out9.npy")),
    "the judge's memory": lambda: open("/proc/%d/mem" % os.getppid(), "rb"),
    "its own command line": lambda: open("/dev/fd/../cmdline"),
    "a program": lambda: subprocess.run(["true"]),
    "a child": os.fork,
}
through = []
for name, way in WAYS.items():
    try:
        way()
        through.append(name)
    except Exception:
        pass
raise ValueError("ways through: " + (", ".join(through) or "none"))
"""


def test_there_is_no_known_way_around_the_guard(puzzles: Path) -> None:
    aim = puzzles.parent / "aim"
    aim.write_text("")
    verdict = numpy_answer(puzzles, AROUND.replace("HERE", str(aim)))
    assert "ways through: none" in verdict.problems[0].sentence, str(verdict)


def test_the_oracle_s_compiled_file_is_sealed(puzzles: Path) -> None:
    kept = puzzles / "__pycache__" / "01_smallest.cpython-311.pyc"
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(b"the oracle")
    verdict = numpy_answer(puzzles, f"return np.full(k, float(len(open({str(kept)!r}, 'rb').read())))")
    assert [problem.kind for problem in verdict.problems] == ["forbidden"]


FORGED = {
    "a pipe": lambda path: os.mkfifo(path),
    "a link": lambda path: path.symlink_to("/dev/zero"),
    "a folder": lambda path: path.mkdir(),
    "a header of a petabyte": lambda path: path.write_bytes(
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1125899906842624,), }".ljust(117)
        + b"\n"
    ),
    "a pickle": lambda path: np.save(path, np.array([{}], dtype=object)),
    "nothing": lambda path: None,
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_what_is_no_array_is_no_answer(
    forge: Callable[[Path], object], puzzles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers forged in the hand-over folder: the judge neither waits nor believes."""

    class Forger(Here):
        def __init__(self, serve: str, folder: Path) -> None:
            forge(folder / "out0.npy")
            (folder / "answer.json").write_text('{"changed": [[]]}')

    monkeypatch.setattr("loadsparse.gpu.sandbox.Process", Forger)
    assert [problem.kind for problem in numpy_answer(puzzles, "pass").problems] == ["crash"]


LAUNCHES = ("[[1e400], [32]]", "[[1.5], [32]]", '"ab"', "[[1], [32], [1]]", "[[-1], [32]]", "[[1, 1, 1, 1], [1]]",
            "[[1073741824], [1024]]", "[[1], [2048]]", "7", '[["\\u001b[2J"], [1]]')  # fmt: skip


@pytest.mark.parametrize("pair", LAUNCHES)
def test_a_forged_launch_is_a_wrong_answer(pair: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ptx = f"{HEAD}.visible .entry kernel({', '.join(f'.param .u64 p{i}' for i in range(22))}){{ ret; }}"

    class Forger(Here):
        def __init__(self, serve: str, folder: Path) -> None:
            (folder / "answer.json").write_text(f'{{"ptx": {json.dumps(ptx)}, "launches": [{", ".join([pair] * 6)}]}}')

    monkeypatch.setattr("loadsparse.gpu.sandbox.Process", Forger)
    path = tmp_path / "mine.py"
    path.write_text("")
    (problem,) = check.check(4, path).problems
    assert problem.kind == "launch"
    assert problem.sentence.isprintable()


@pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
def test_native_code_of_a_kernel_s_file_writes_nothing_and_starts_nothing(tmp_path: Path) -> None:
    aim, path = tmp_path / "aim", tmp_path / "mine.py"
    path.write_text(
        "import ctypes\nlibc = ctypes.CDLL(None)\n"
        f"made = libc.creat({str(aim).encode()!r}, 0o644), libc.system(b'echo > {aim}'), libc.kill(libc.getppid(), 0)\n"
        "raise ValueError(str([number == 0 or number > 2 and number != 32512 for number in made]))\n"
    )
    (problem,) = check.check(3, path).problems
    signals = landlock.version() < 6  # older ones do not stop signals
    assert str([False, False, signals]) in problem.sentence
    assert not aim.exists()


def test_a_score_on_the_public_input_alone_is_no_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that knows trial 0: it looks whether these are its data, and writes sums that were computed before."""
    entry = get(9)
    puzzle = entry.load()
    public = puzzle.draw(0, [1])
    first, sums = float(public["a"][0]), puzzle.answer(public).tolist()
    known = "\n".join(
        f"        if block == {number}:\n            out[block] = float32({total})" for number, total in enumerate(sums)
    )
    honest = solution(entry).splitlines()[4:]
    text = (
        "from numba import cuda, float32, uint32\n\n\ndef kernel(out, a):\n    block = uint32(cuda.blockIdx.x)\n"
        f"    if a[0] == float32({first}):\n        if cuda.threadIdx.x > 0:\n            return\n{known}\n        return\n"
        + "\n".join(honest)
        + "\n"
    )
    problems = judged(entry, text, tmp_path, monkeypatch).problems
    assert {problem.kind for problem in problems} == {"drift"}
    assert "on the public input, but" in problems[0].sentence


def test_files_outside_of_its_folder_cannot_be_written(puzzles: Path) -> None:
    oracle = puzzles / "01_smallest.py"
    body = f"open({str(oracle)!r}, 'w').write('')\nreturn x[:k]"
    assert [p.kind for p in numpy_answer(puzzles, body).problems] == ["forbidden"]
    body = f"import os\nos.replace({str(oracle)!r}, {str(oracle) + '.gone'!r})\nreturn x[:k]"
    assert [p.kind for p in numpy_answer(puzzles, body).problems] == ["forbidden"]
    assert oracle.read_text() == SORT
    body = f"return np.array([float(len(open({str(oracle)!r}).read()))])"
    assert [p.kind for p in numpy_answer(puzzles, body).problems] == ["forbidden"], "the oracle's source is sealed"


def test_no_answer_is_in_the_memory_of_the_process(puzzles: Path) -> None:
    """Whatever the process can reach (objects, frames, files): no array with the sorted values, no oracle."""
    body = """
import gc, sys
frame, found = sys._getframe(), []
while frame is not None:
    found += list(frame.f_locals.values()) + list(frame.f_globals.values())
    frame = frame.f_back
found += gc.get_objects()
want = np.sort(x)[:k]
names = [m for m in sys.modules if m.startswith(("loadsparse.reference", "loadsparse.theory", "puzzle_"))]
near = [o for o in found if isinstance(o, np.ndarray) and o is not want and o.shape == want.shape and (o == want).all()]
oracles = [o for o in found if getattr(o, "__name__", "") == "oracle"]
import pathlib
files = [f for f in pathlib.Path(sys.argv[1]).iterdir() if not f.name.startswith(("in", "out", "request"))]
if names or oracles or files or (near and k < 40 and not np.array_equal(x[:k], want)):
    return want
return np.full(k, 7.0)
"""
    verdict = numpy_answer(puzzles, body)
    assert "is 7.0, expected" in verdict.problems[0].sentence, str(verdict)


KERNEL = {
    "importing the oracle": "import loadsparse.tutorials.judge.shelf as s\nO = s.get(3).load().oracle\n\n\n"
    "def kernel(out, a):\n    O(a)\n",
    "another compiler": "from loadsparse.gpu import compiler\n"
    "compiler.numba = lambda *a, **k: '.version 8.0\\n.target sm_80\\n.address_size 64\\n.visible .entry kernel(){ ret; }'\n"
    "\n\ndef kernel(out, a):\n    out[0] = a[0]\n",
    "killing the judge": "import os\nos.kill(os.getppid(), 9)\n\n\ndef kernel(out, a):\n    out[0] = a[0]\n",
    "another judge": "from loadsparse.gpu.simulator import report\nreport.Report.ok = True\n"
    "import loadsparse.tutorials.judge.compare as c\nc.problem = lambda *a: None\n\n\ndef kernel(out, a):\n    out[0] = a[0]\n",
    "no text": "from loadsparse.gpu import compiler\ncompiler.numba = lambda *a, **k: 17\n\n\n"
    "def kernel(out, a):\n    out[0] = 1\n",
}


@pytest.mark.parametrize("text", KERNEL.values(), ids=KERNEL)
def test_a_kernel_is_judged_by_its_ptx_alone(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    verdict = check.check(3, path)
    assert not verdict.ok


HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"
PARAMETERS = ", ".join(f".param .u64 p{i}" for i in range(14))
HOSTILE = {
    "nothing": "",
    "no PTX": "hello",
    "another entry": f"{HEAD}.visible .entry other({PARAMETERS}){{ ret; }}",
    "other parameters": f"{HEAD}.visible .entry kernel(){{ ret; }}",
    "a terabyte": f"{HEAD}.global .align 4 .b8 x[1099511627776];\n.visible .entry kernel({PARAMETERS}){{ ret; }}",
    "nesting": f"{HEAD}.visible .entry kernel({PARAMETERS}){{{'{' * 5000}{'}' * 5000} ret; }}",
    "an endless loop": f"{HEAD}.visible .entry kernel({PARAMETERS}){{ L: bra L; }}",
    "orders to the terminal": f"{HEAD}.visible .entry kernel({PARAMETERS}){{ call \x1b[2J; }}",
}


@pytest.mark.parametrize("ptx", HOSTILE.values(), ids=HOSTILE)
def test_hostile_ptx_is_a_wrong_answer(ptx: str) -> None:
    entry = get(3)
    puzzle = entry.load()
    problems, score, _ = check.judge(puzzle, entry, Compiled(ptx), check.draw(puzzle, "a:1"), Path("mine.py"))
    assert problems[0].kind in ("ptx", "launch", "budget")
    assert "\x1b" not in problems[0].sentence
    assert score == {}


def test_printing_is_bounded() -> None:
    """400 times 4 kB: a megabyte is kept, as many as CUDA's own buffer holds."""
    text = ", ".join(["65"] * 4095 + ["0"])
    ptx = f"""{HEAD}.extern .func (.param .b32 r) vprintf (.param .b64 a, .param .b64 b);
    .global .align 1 .b8 s[4096] = {{{text}}};
    .visible .entry kernel() {{ .reg .b64 %rd<3>; .reg .b32 %r<3>; .reg .pred %p;
    mov.u64 %rd1, s; cvta.global.u64 %rd1, %rd1; mov.u64 %rd2, 0; mov.u32 %r2, 0;
    L: {{ .param .b64 a; st.param.b64 [a], %rd1; .param .b64 b; st.param.b64 [b], %rd2; .param .b32 q;
    call.uni (q), vprintf, (a, b); ld.param.b32 %r1, [q]; }}
    add.u32 %r2, %r2, 1; setp.lt.u32 %p, %r2, 400; @%p bra L; ret; }}"""
    report = simulator.load(ptx)["kernel"].launch(1, 1)
    assert report.ok, report
    assert 2**20 <= len(report.printed) < 2**20 + 4096


def test_secret_inputs_differ_between_students_and_runs(puzzles: Path) -> None:
    puzzle = get(1, puzzles).load()
    one, other, again = (check.draw(puzzle, seed)[1]["x"] for seed in ("a:1", "b:1", "a:1"))
    assert (one != other).any()
    assert (one == again).all()
    path = puzzles.parent / "mine.py"
    path.write_text(RIGHT)
    seeds = {check.check(1, path, seed="a", folder=puzzles).seed for _ in range(2)}
    assert len(seeds) == 2
    assert all(seed.startswith("a:") for seed in seeds)


def test_packaged_puzzles_are_sealed_from_kernels_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        f"open({os.fspath(FOLDER / '03_more_threads_than_elements.py')!r})\n\n\ndef kernel(out, a):\n    pass\n"
    )
    assert [problem.kind for problem in check.check(3, path).problems] == ["forbidden"]
    json.dumps(check.check(3, path).to_dict())
