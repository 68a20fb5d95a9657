"""`loadsparse profile`: a table or JSON for every kind of kernel, an exit code that means something, one line of error."""

import json
import textwrap

import numpy as np
import pytest
from typer.testing import CliRunner

from loadsparse.cli.main import app
from loadsparse.gpu import compiler, profiling, targets
from loadsparse.gpu.simulator import coverage

RACE = """
extern "C" __global__ void reverse(float *x, int n) {
    extern __shared__ float s[];
    int i = threadIdx.x;
    if (i < n) s[i] = x[i];
    SYNC
    if (i < n) x[i] = s[n - 1 - i];
}
"""
LAUNCH = ["--grid", "1", "--block", "64", "--shared", "256", "--arg", "f32[64]=arange", "--arg", "64"]


def run(*arguments):
    return CliRunner().invoke(app, ["profile", *arguments])


@pytest.fixture
def racy(tmp_path):
    path = tmp_path / "mine.cu"
    path.write_text(RACE.replace("SYNC", ""))
    return path


@pytest.fixture
def clean(tmp_path):
    path = tmp_path / "good.cu"
    path.write_text(RACE.replace("SYNC", "__syncthreads();"))
    return path


def test_cuda_file(racy, clean):
    told = run(f"{racy}:reverse", *LAUNCH, "--json")
    assert told.exit_code == 1
    found = json.loads(told.stdout)
    assert not found["ok"]
    (kernel,) = found["kernels"]
    assert {h["kind"] for h in kernel["hazards"]} == {"race", "uninitialized"}  # warp 1 has not stored yet
    assert {h["source_line"] for h in kernel["hazards"]} <= {5, 7}
    assert kernel["metrics"]["smsp__inst_executed.sum"]["source"] == "counted"
    assert kernel["metrics"]["l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum"]["value"] == 8
    assert kernel["metrics"]["dram__bytes_read.sum"] == {"value": 256, "unit": "bytes", "source": "modelled"}
    assert kernel["metrics"]["launch__registers_per_thread"]["source"] == "compiled"
    assert kernel["occupancy"]["blocks"] == 32
    good = run(str(clean), *LAUNCH, "--json", "--explore", "4")
    assert good.exit_code == 0, good.output
    assert json.loads(good.stdout)["exploration"] == {"schedules": 4, "ok": True, "differences": []}


def test_a_cuda_file_is_named_as_it_is_and_finds_the_headers_beside_it(tmp_path):
    (tmp_path / "mine.h").write_text("#define TWICE(x) (2 * (x))\n")
    (tmp_path / "MINE.CU").write_text(
        '#include "mine.h"\nextern "C" __global__ void f(int *x) {\n    x[threadIdx.x + 1] = TWICE(x[threadIdx.x]);\n}\n'
    )
    done = run(str(tmp_path / "MINE.CU"), "--grid", "1", "--block", "32", "--arg", "i32[32]", "--plain")
    assert done.exit_code == 1
    assert "MINE.CU:3" in done.stdout


def test_registers_are_those_of_this_kernel_in_a_module_of_several(tmp_path):
    path = tmp_path / "two.cu"
    path.write_text(
        'extern "C" __global__ void small(float *x) { x[threadIdx.x] = 1; }\n'
        "__global__ void large(float *x) { float s[24]; for (int i = 0; i < 24; i++) s[i] = x[i * 32 + threadIdx.x];\n"
        "__syncthreads(); for (int i = 0; i < 24; i++) x[i * 32 + threadIdx.x] = s[23 - i] * s[i]; }\n"
    )
    arguments = ["--grid", "1", "--block", "32", "--arg", "f32[768]", "--json"]
    registers = []
    for name in ("small", "large"):
        told = run(f"{path}:{name}", *arguments)
        assert told.exit_code == 0, told.output
        registers.append(json.loads(told.stdout)["kernels"][0]["metrics"]["launch__registers_per_thread"]["value"])
    assert registers[0] < 16 < registers[1]
    assert "name one" in run(str(path), *arguments).stderr


def test_ptx_file_and_text_table(clean, tmp_path):
    path = tmp_path / "good.ptx"
    path.write_text(compiler.cuda(clean.read_text()))
    told = run(f"{path}:reverse", *LAUNCH, "--plain")
    assert told.exit_code == 0, told.output
    for word in (
        "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum",
        "counted",
        "compiled",
        "modelled",
        "occupancy: 64 of 64",
    ):
        assert word in told.stdout


def test_kernel_by_name(tmp_path):
    page = tmp_path / "report.html"
    told = run("lscd", "--shape", "128,8,64", "--json", "--html", str(page))
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)["kernels"]
    assert found[0]["kernel"] == "lscd"
    assert found[0]["metrics"]["smsp__inst_executed_pipe_tensor_op_hmma.sum"]["value"] == 4 * 4 * 2  # warps, k16, rows
    assert found[0]["metrics"]["launch__spill_bytes"]["value"] == 0
    assert "lscd.py" in page.read_text()
    assert found[0]["metrics"]["mma_with_copies_in_flight.pct"]["value"] == 0  # one tile of K: nothing left to copy


def test_python_file_in_a_child_process(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        textwrap.dedent(
            """
            from loadsparse.gpu import compiler

            SOURCE = '''extern "C" __global__ void copy(const short *a, const short *b, short *c, int size) {
                int i = blockIdx.x * blockDim.x + threadIdx.x;
                if (i < size) c[i] = a[0];
            }'''

            def kernel(a, n, arch):
                size = a.shape[0] * n
                return {"ptx": compiler.cuda(SOURCE, arch), "grid": -(-size // 64), "block": 64, "args": ["a", "b", "c", size]}
            """
        )
    )
    told = run(f"{path}:kernel", "--shape", "32,8,16", "--json")
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["kernels"][0]["kernel"] == "copy"


def test_coverage_lists_every_opcode():
    told = run("--coverage", "--json")
    assert told.exit_code == 0
    rows = json.loads(told.stdout)["opcodes"]
    assert rows == coverage()
    assert {"mma", "ldmatrix", "cp", "shfl"} <= {row["opcode"] for row in rows}
    assert "refused at load" in run("--coverage", "--plain").stdout


def test_a_file_without_kernels_says_so(tmp_path):
    path = tmp_path / "empty.ptx"
    path.write_text(".version 8.0\n.target sm_80\n.address_size 64\n")
    for target in (path, f"{path}:k"):
        told = run(str(target), "--grid", "1", "--block", "32")
        assert told.exit_code == 2
        assert "empty.ptx has no kernel" in told.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a kernel"),
        (["nothing"], "unknown kernel"),
        (["missing.cu", "--grid", "1", "--block", "32"], "missing.cu"),
        (["mine.cu"], "--grid"),
        (["lscd", "--grid", "1"], "belong to"),
        (["lscd", "--shape", "1,2"], "--shape"),
        (["lscd", "--arch", "sm_70"], "sm_70"),
        (["lscd", "--shape", "16,8,16", "--html", "/no/such/folder/x.html"], "folder"),
        (["lscd", "--shape", "16,8,x"], "--shape"),
    ],
)
def test_bad_input_is_one_line(arguments, words):
    told = run(*arguments)
    assert told.exit_code == 2
    assert told.stdout == ""
    assert words in told.stderr
    assert told.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "wrong", ["f32[9", "f99[3]", "f32[3]=twos", "1e", "i8:900", "f32[99999999999]", "x.npy", "f16:13e8", "i8:2.5"]
)
def test_bad_arguments_are_one_line(clean, wrong):
    told = run(f"{clean}:reverse", "--grid", "1", "--block", "32", "--arg", wrong, "--arg", "3")
    assert told.exit_code == 2
    assert told.stderr.count("\n") == 1


def test_wrong_number_of_arguments_and_broken_sources(clean, tmp_path):
    told = run(f"{clean}:reverse", "--grid", "1", "--block", "32", "--arg", "3")
    assert (told.exit_code, told.stderr.count("\n")) == (2, 1)
    assert "takes 2 arguments" in told.stderr
    for name, text in (
        ("a.cu", "__global__ void f( {"),
        ("a.ptx", "hello"),
        ("b.ptx", ".version 8.0\n.target sm_80\n"),
    ):
        path = tmp_path / name
        path.write_text(text)
        told = run(str(path), "--grid", "1", "--block", "32")
        assert (told.exit_code, told.stderr.count("\n")) == (2, 1), told.output
    (tmp_path / "c.cu").write_bytes(b"\xff\xfe\x00")
    assert "no text" in run(str(tmp_path / "c.cu"), "--grid", "1", "--block", "32").stderr


def test_arguments_as_written(tmp_path):
    rng = np.random.default_rng(0)
    assert targets.argument("f32[4]=arange", rng)[0].tolist() == [0, 1, 2, 3]
    assert targets.argument("bf16[2]=ones", rng)[0].tolist() == [0x3F80, 0x3F80]
    value, undefined = targets.argument("i16[3]=empty", rng)
    assert (value.dtype, undefined) == (np.dtype(np.int16), True)
    assert targets.argument("0x10", rng) == (16, False)
    assert targets.argument("-2.5", rng) == (-2.5, False)
    half, _ = targets.argument("f16:2.5", rng)
    assert (half.dtype, float(half)) == (np.dtype(np.float16), 2.5)
    np.save(tmp_path / "x.npy", np.arange(3))
    assert targets.argument(str(tmp_path / "x.npy"), rng)[0].tolist() == [0, 1, 2]


def test_a_job_leaves_its_buffers_alone(clean):
    job, _ = targets.resolve(str(clean), grid=(1,), block=(64,), shared=256, arguments=["f32[64]=arange", "64"])
    profiling.profile(job, explored=2)
    assert job.buffers["array 0"].tolist() == list(range(64))
