"""`loadsparse trace`: steps of one warp as text or JSON."""

import json

import pytest
from typer.testing import CliRunner

from loadsparse.cli.main import app


def run(*arguments):
    return CliRunner().invoke(app, ["trace", *arguments])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "double.cu"
    path.write_text('extern "C" __global__ void twice(int *x) { x[threadIdx.x] = 2 * x[threadIdx.x]; }')
    return path


def test_every_step_of_a_kernel(source):
    arguments = [f"{source}:twice", "--grid", "1", "--block", "64", "--arg", "i32[64]=arange"]
    told = run(*arguments, "--warp", "1", "--json")
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["ended"]
    loaded = next(step for step in found["steps"] if step["ptx"].startswith("ld.global"))
    assert loaded["changes"][0]["values"] == list(range(32, 64))
    assert loaded["accesses"][0]["sectors"] == [lane // 8 for lane in range(32)]
    assert loaded["source_line"] == 1
    text = run(*arguments, "--from", "1", "--count", "2").stdout
    assert text.count("line ") == 2
    assert "lanes 24-31" in run(*arguments, "--lanes").stdout
    assert "the warp ended after" in run(*arguments).stdout
    assert "ended before" in run(*arguments, "--from", "1000").stdout


def test_a_tensor_core_kernel_by_name():
    told = run("lscd", "--shape", "128,8,64", "--from", "60", "--count", "150", "--json")
    assert told.exit_code == 0, told.output
    steps = json.loads(told.stdout)["steps"]
    assert len(steps) == 150
    assert any(step["pending"] for step in steps)
    assert any(access["space"] == "shared" for step in steps for access in step["accesses"])


@pytest.mark.parametrize("wrong", [["--warp", "9"], ["--in-block", "99"], ["--kernel", "7"], ["--count", "100000000"]])
def test_bad_input_is_one_line(source, wrong):
    told = run(f"{source}:twice", "--grid", "1", "--block", "64", "--arg", "i32[64]", *wrong)
    assert told.exit_code == 2
    assert told.stderr.count("\n") == 1


def test_a_file_for_trace_viewers(source, tmp_path):
    target = tmp_path / "block.json"
    told = run(
        f"{source}:twice", "--grid", "1", "--block", "64", "--arg", "i32[64]", "--perfetto", str(target), "--json"
    )
    assert told.exit_code == 0, told.output
    events = json.loads(target.read_text())["traceEvents"]
    assert {event["tid"] for event in events} == {0, 1}
    assert sum(event["ph"] == "X" for event in events) == 2 * len(json.loads(told.stdout)["steps"])
    assert (
        "folder"
        in run(f"{source}:twice", "--grid", "1", "--block", "64", "--arg", "i32[64]", "--perfetto", "/no/x/y").stderr
    )
