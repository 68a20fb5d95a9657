"""`loadsparse verify` as a user types it: exit codes, JSON, one-line errors, and nothing slow before it is needed."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from loadsparse.cli.main import app, main
from loadsparse.gpu.verify.inputs import random_case
from loadsparse.reference import spmm

EXAMPLE = Path(__file__).parent / "kernels" / "mine.py"
HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["verify", *(str(argument) for argument in arguments)])


def refused(result: Result, message: str) -> None:
    """Exit code 2, nothing on stdout, one line on stderr."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("loadsparse: ")


def test_kernel_is_verified_as_json() -> None:
    result = run("lscd", "-i", "nan", "-i", "corner", "--seed", 5, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["ok"] is True
    assert found["seed"] == 5
    assert [row["input"] for row in found["kernels"]] == ["nan", "corner"]
    for row in found["kernels"]:
        assert row["kernel"] == "lscd"
        assert [row[name] for name in ("exact", "accurate", "clean", "complete")] == [True] * 4
        assert row["seconds"] > 0
        assert row["metrics"]["smsp__inst_executed_pipe_tensor_op_hmma.sum"] > 0


def test_table_says_what_it_does_not_prove() -> None:
    result = run("lscd", "-i", "minus-zero", "--seed", 5, "--plain")
    assert result.exit_code == 0
    assert "lscd" in result.stdout
    assert "does not prove" in result.stdout
    assert "seed 5" in result.stdout
    assert "\x1b" not in result.stdout


def test_own_kernel_is_verified() -> None:
    """The 20 lines that the README shows."""
    assert len(EXAMPLE.read_text().splitlines()) <= 24
    result = run(f"{EXAMPLE}:kernel", "-i", "inf", "-i", "huge", "--json")
    assert result.exit_code == 0, result.output
    for row in json.loads(result.stdout)["kernels"]:
        assert row["kernel"] == "mine.py:kernel"
        assert (row["exact"], row["accurate"], row["clean"], row["complete"]) == (None, True, True, True)


def test_kernel_object_in_a_file_is_verified_exactly(tmp_path: Path) -> None:
    path = tmp_path / "theirs.py"
    path.write_text("from loadsparse.gpu import kernels\nkernel = kernels.get('lscd')\n")
    result = run(f"{path}:kernel", "-i", "minus-zero", "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["kernels"]
    assert [row[name] for name in ("exact", "accurate", "clean", "complete")] == [True] * 4


def own(tmp_path: Path, **changes: Any) -> str:
    """A kernel file whose description is a broken copy of a small good one."""
    description = {"ptx": HEAD + BODY, "grid": 1, "block": 32, "args": ["a", "b", "c"], **changes}
    path = tmp_path / "mine.py"
    path.write_text(f"def kernel(a, n, arch):\n    return {description!r}\n")
    return f"{path}:kernel"


BODY = """.visible .entry f(.param .u64 a, .param .u64 b, .param .u64 c)
{
	.reg .b64 %rd<3>;
	.reg .b32 %r<3>;
	ld.param.u64 %rd1, [c];
	mov.u32 %r1, %tid.x;
	mul.wide.u32 %rd2, %r1, 2;
	add.s64 %rd1, %rd1, %rd2;
	mov.u32 %r2, 0;
	st.global.b16 [%rd1], %r2;
	ret;
}
"""


def test_wrong_kernel_fails_with_an_explanation(tmp_path: Path) -> None:
    result = run(own(tmp_path), "-i", "minus-zero")
    assert result.exit_code == 1
    assert "not verified" in result.stdout
    text = " ".join(result.stdout.split())
    assert "elements of C were never written; first C[6, 2]" in text
    assert "expected" in text
    assert "written by block (0, 0, 0), warp 0, lane 0 of f" in text


def test_cheating_with_the_other_operand_is_impossible(tmp_path: Path) -> None:
    """The file never sees B, so it cannot hand over a product instead of a kernel."""
    path = tmp_path / "cheat.py"
    path.write_text(
        "class Spy:\n"
        "    encode = staticmethod(lambda a, dtype: a)\n"
        "    def plan(self, encoded, b, arch):\n"
        "        raise ValueError(f'b starts with {b.flat[:3]}')\n"
        "kernel = Spy()\n"
    )
    messages = {run(f"{path}:kernel", "-i", "corner", "--seed", 1).stderr for _ in range(2)}
    assert len(messages) == 2  # a fresh stand-in every time, whatever the seed of the judge's B


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ptx": HEAD + BODY.replace("mov.u32 %r2, 0;", "mov.u32 %r2 0;")}, "line 12, column"),
        ({"ptx": HEAD + BODY.replace("mov.u32 %r2, 0;", "movv.u32 %r2, 0;")}, "movv"),
        ({"shared": 200 * 1024}, "204800 bytes of shared memory per block"),
        ({"block": (1024, 2)}, "a block of 2048 threads"),
        ({"args": ["a", "c"]}, "takes 3 arguments, 2 given"),
        ({"args": ["a", "b", 3.5, "c"]}, "takes 3 arguments, 4 given"),
        ({"entry": "g"}, "no entry 'g'"),
        ({"grid": 0}, "grid is 0"),
    ],
)
def test_impossible_kernels_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    refused(run(own(tmp_path, **changes), "-i", "corner"), message)


def test_endless_kernel_is_stopped_by_its_budget(tmp_path: Path) -> None:
    ptx = HEAD + BODY.replace("\tret;\n", "L:\n\tbra L;\n")
    result = run(own(tmp_path, ptx=ptx), "-i", "minus-zero", "--budget", 100_000)
    assert result.exit_code == 1
    assert "budget" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "unknown kernel 'nonsense': known are"),
        (["lscd", "-i", "ones"], "unknown input 'ones'"),
        (["lscd", "--shape", "4,5"], "--shape 4,5"),
        (["lscd", "--shape", "²,8,8"], "--shape ²,8,8"),
        (["lscd", "--memory-limit", "inf"], "--memory-limit inf"),
        (["lscd", "--time-limit", "nan"], "time limit"),
        (["lscd", "--device", "tpu"], "unknown device 'tpu'"),
        (["lscd", "--shape", "4,0,5"], "at least 1"),
        (["lscd", "--shape", "100000000,8,100000000"], "elements"),
        (["lscd", "-i", "corner", "--arch", "sm_10"], "sm_10"),
        (["lscd", "-i", "corner", "--dtype", "f64"], "f64"),
        (["lscd", "-i", "corner", "--split-k", "0"], "split"),
        (["lscd", "--sparsity", "1.5", "-i", "real"], "1.5"),
        (["nowhere.py:kernel"], "no such file"),
        (["mine.py"], "name the function too"),
        (["--result", "c.npy"], "go together"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], message: str) -> None:
    refused(run(*arguments), message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "lscd", "--seed", "-1"], "--seed"),
        (["verify", "lscd", "--sparsity", "x"], "--sparsity"),
        (["verify", "lscd", "--no-such-option"], "--no-such-option"),
        (["nonsense"], "No such command 'nonsense'"),
        (["claims", "lscd"], "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["loadsparse", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    printed = capsys.readouterr()
    assert (stop.value.code, printed.out) == (2, "")
    assert printed.err.startswith("loadsparse: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1


@pytest.fixture
def product(tmp_path: Path) -> dict[str, Path]:
    case = random_case(4, shape=(40, 5, 33))
    arrays = {"a": case.a, "b": case.b, "c": spmm.lscd(case.a, case.b, arch="sm_80")}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    return {name: tmp_path / f"{name}.npy" for name in arrays}


def judged(paths: dict[str, Path], *more: str) -> Result:
    return run("--result", paths["c"], "--a", paths["a"], "--b", paths["b"], *more)


def test_product_from_elsewhere_is_judged(product: dict[str, Path]) -> None:
    result = judged(product, "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["kernels"]
    assert [row[name] for name in ("exact", "accurate", "clean", "complete")] == [None, True, None, None]
    np.save(product["c"], np.load(product["c"]) * np.float16(1.01))
    wrong = judged(product)
    assert wrong.exit_code == 1
    assert "beyond the error bound" in " ".join(wrong.stdout.split())


def test_bad_result_files_are_refused(product: dict[str, Path], tmp_path: Path) -> None:
    whole = product["b"].read_bytes()
    product["b"].write_bytes(whole[: len(whole) // 2])
    refused(judged(product), "B from")
    product["b"].write_bytes(pickle.dumps([1, 2]))
    refused(judged(product), "pickle")
    np.save(product["b"], np.array([{}, 2]), allow_pickle=True)
    refused(judged(product), "pickle")
    np.save(product["b"], np.zeros((7, 5), np.float16))
    refused(judged(product), "A is 40 x 33 and B is 7 x 5")
    product["b"].unlink()
    refused(judged(product), "No such file")


def test_weights_from_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    good = tmp_path / "w.npy"
    np.save(good, rng.standard_normal((70, 40)).astype(np.float32))
    result = run("lscd", "--weights", good, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["kernels"][0]["input"] == "w.npy:w"
    good.write_bytes(good.read_bytes()[:-5])
    refused(run("lscd", "--weights", good), "truncated")
    np.save(good, np.array([[np.nan, 1.0]]))
    refused(run("lscd", "--weights", good), "nan")
    good.write_bytes(pickle.dumps({"w": 1}))
    refused(run("lscd", "--weights", good), "pickle")
    refused(run("lscd", "--weights", tmp_path / "none.npy"), "No such file")


def test_help_imports_nothing_heavy() -> None:
    """That is what makes it quick: half a second on an idle machine."""
    probe = (
        "import sys, contextlib, io\nsys.argv[1:] = ['--help']\nfrom loadsparse.cli.main import main\n"
        "out = io.StringIO()\nwith contextlib.suppress(SystemExit), contextlib.redirect_stdout(out): main()\n"
        "assert 'verify' in out.getvalue()\n"
        "print(sorted({'numpy', 'numba', 'llvmlite', 'lark', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
