"""Arguments and limits of a launch: what is accepted, converted, and refused in one line."""

import numpy as np
import pytest
from ptx_text import HEAD, entry

from loadsparse.gpu import simulator

COPY = (
    "mov.u32 %r1, %tid.x; ld.param.u64 %rd0, [a]; ld.param.u64 %rd1, [b]; mad.wide.u32 %rd0, %r1, 4, %rd0;\n"
    "mad.wide.u32 %rd1, %r1, 4, %rd1; ld.global.u32 %r2, [%rd0]; st.global.u32 [%rd1], %r2;"
)


def kernel(body="", parameters="", arch="sm_80", head=""):
    return simulator.load(entry(body, parameters, head), arch)["k"]


def copy():
    return kernel(COPY, ".param .u64 a, .param .u64 b")


@pytest.mark.parametrize("engine", ["llvm", "interpreter"])
def test_an_index_beyond_the_branch_targets_is_a_trap(engine):
    text = entry("t: .branchtargets A, B;\nmov.u32 %r1, 77;\nbrx.idx %r1, t;\nA:\nB:")
    (hazard,) = simulator.load(text)["k"].launch(1, 32, engine=engine).hazards
    assert str(hazard).startswith("trap: the index is beyond the list of branch targets; kernel k")


def test_a_tree_of_calls_ends_with_the_budget():
    """Without any loop, 2**40 calls."""
    functions = ".func f40() { ret; }\n" + "".join(
        f".func f{i}() {{ call f{i + 1}, (); call f{i + 1}, (); ret; }}\n" for i in range(39, -1, -1)
    )
    text = f"{HEAD}{functions}.visible .entry k() {{ call f0, (); ret; }}"
    report = simulator.load(text)["k"].launch(1, 32, budget=10_000)
    assert [hazard.kind for hazard in report.hazards] == ["budget"]


def test_arrays_of_any_shape_are_copied_in_and_written_back():
    a = np.arange(12, dtype=np.int32).reshape(3, 4)
    b = np.zeros((2, 6), np.float32)
    assert copy().launch(1, 12, a, b, engine="interpreter").ok
    assert b.view(np.int32).reshape(-1).tolist() == list(range(12))
    assert a.reshape(-1).tolist() == list(range(12))


def test_arrays_that_share_memory_alias():
    whole = np.arange(16, dtype=np.int32)
    assert copy().launch(1, 8, whole[:8], whole[8:], engine="interpreter").ok
    assert whole.tolist() == [*range(8)] * 2
    shifted = np.arange(9, dtype=np.int32)
    report = copy().launch(1, 8, shifted[:8], shifted[1:], engine="interpreter")
    assert [h.kind for h in report.hazards] == ["race"]  # each thread overwrites what its neighbour reads
    assert shifted.tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7]


def test_neighbouring_views_do_not_hide_an_overrun():
    whole = np.zeros(16, np.int32)
    report = copy().launch(1, 9, np.zeros(9, np.int32), whole[:8], engine="interpreter")
    assert [h.kind for h in report.hazards] == ["bounds"]


REFUSED_ARGUMENTS = {
    "too few": ((np.zeros(4, np.int32),), "takes 2 arguments, 1 given"),
    "not contiguous": ((np.zeros((4, 4), np.int32).T[1:], np.zeros(4)), "argument 0 is not C-contiguous"),
    "objects": ((np.array([None]), np.zeros(4)), "Python objects"),
    "a float for a pointer": ((1.5, np.zeros(4)), "wants an integer"),
    "too large": ((1 << 64, np.zeros(4)), "out of range"),
    "empty of a number": ((simulator.empty(3), np.zeros(4)), "marks a NumPy array"),
    "text": (("x", np.zeros(4)), "wants an integer"),
    "big-endian": ((np.zeros(4, ">i4"), np.zeros(4)), "argument 0 is big-endian"),
}


@pytest.mark.parametrize("name", REFUSED_ARGUMENTS)
def test_wrong_arguments_are_refused_in_one_line(name):
    arguments, message = REFUSED_ARGUMENTS[name]
    with pytest.raises(simulator.LaunchError, match=message) as caught:
        copy().launch(1, 4, *arguments, engine="interpreter")
    assert "\n" not in str(caught.value)


def test_scalars_are_converted_to_the_parameter():
    body = "ld.param.f32 %f1, [f]; ld.param.s16 %r1, [h]; ld.param.f64 %fd1, [d]; ld.param.u8 %r2, [t]; ld.param.u64 %rd1, [o]; st.global.f32 [%rd1], %f1; st.global.u32 [%rd1+4], %r1; st.global.f64 [%rd1+8], %fd1; st.global.u32 [%rd1+16], %r2;"  # noqa: E501
    launch = kernel(body, ".param .f32 f, .param .s16 h, .param .f64 d, .param .u8 t, .param .u64 o").launch
    target = np.zeros(5, np.uint32)
    assert launch(1, 1, 3, -2, np.float32(0.5), True, target, engine="interpreter").ok
    assert target.tolist() == [0x40400000, 0xFFFFFFFE, 0, 0x3FE00000, 1]
    with pytest.raises(simulator.LaunchError, match="out of range"):
        launch(1, 1, 3, 70000, 0.5, 1, target, engine="interpreter")
    with pytest.raises(simulator.LaunchError, match="array, but the parameter"):
        launch(1, 1, target, 1, 0.5, 1, target, engine="interpreter")


def test_structures_and_null_pointers():
    body = "ld.param.u32 %r1, [s+4]; ld.param.u64 %rd1, [n]; ld.param.u64 %rd2, [o]; cvt.u32.u64 %r2, %rd1; add.u32 %r1, %r1, %r2; st.global.u32 [%rd2], %r1;"  # noqa: E501
    launch = kernel(body, ".param .align 4 .b8 s[8], .param .u64 n, .param .u64 o").launch
    target = np.zeros(1, np.uint32)
    assert launch(1, 1, bytes([0, 0, 0, 0, 7, 0, 0, 0]), None, target, engine="interpreter").ok
    assert target[0] == 7
    with pytest.raises(simulator.LaunchError, match="8 bytes"):
        launch(1, 1, 5, None, target, engine="interpreter")


STRUCTURE = np.dtype([("x", "<f4"), ("n", "<i8"), ("tail", "u1", (3,))], align=True)  # 24 bytes, holes included


@pytest.mark.parametrize("form", ["bytes", "scalar", "array without dimensions", "plain void"])
@pytest.mark.parametrize("engine", ["interpreter", "llvm"])
def test_structures_by_value(form, engine):
    value = np.zeros((), STRUCTURE)
    value["x"], value["n"], value["tail"] = 1.5, -7, (1, 2, 250)
    forms = {
        "bytes": value.tobytes(), "scalar": value[()], "array without dimensions": value,
        "plain void": np.void(value.tobytes()),
    }  # fmt: skip
    body = (
        "ld.param.u64 %rd0, [p1]; ld.param.u32 %r1, [p0]; st.global.u32 [%rd0], %r1; ld.param.u64 %rd1, [p0+8];"
        "st.global.u64 [%rd0+8], %rd1; ld.param.u8 %r2, [p0+18]; st.global.u32 [%rd0+4], %r2;"
    )
    launch = kernel(body, ".param .align 8 .b8 p0[24], .param .u64 p1").launch
    out = np.zeros(4, np.uint32)
    assert launch(1, 1, forms[form], out, engine=engine).ok
    assert out[:1].view(np.float32)[0] == 1.5
    assert out[1] == 250
    assert out[2:].view(np.int64)[0] == -7


def test_a_structure_of_another_size_or_with_objects_is_refused():
    launch = kernel("", ".param .align 8 .b8 p0[24]").launch
    for value, message in [
        (np.zeros((), [("x", "<f4")]), "argument 0 has 4 bytes, the parameter 24"),
        (np.zeros(1, STRUCTURE), r"argument 0 is an array, .* by value: pass bytes or one structured element"),
        (np.zeros((), [("a", object), ("b", "V16")]), "argument 0 .* Python objects"),
        (3, "argument 0 fills a structure of 24 bytes: pass bytes or one structured element"),
    ]:
        with pytest.raises(simulator.LaunchError, match=message):
            launch(1, 1, value)


def test_read_only_arrays_may_be_read():
    a = np.arange(4, dtype=np.int32)
    a.flags.writeable = False
    assert copy().launch(1, 4, a, np.zeros(4, np.int32), engine="interpreter").ok
    with pytest.raises(simulator.LaunchError, match="read-only"):
        copy().launch(1, 4, np.ones(4, np.int32), a, engine="interpreter")


@pytest.mark.parametrize(
    ("grid", "block", "options", "message"),
    [
        (1, 1025, {}, "block.x is 1025|1025 threads"),
        (1, (32, 32, 2), {}, "2048 threads"),
        (1, (1, 1, 65), {}, "block.z is 65"),
        (0, 1, {}, "grid.x is 0"),
        ((1, 70000), 1, {}, "grid.y is 70000"),
        ((1, 1, 1, 1), 1, {}, "4 dimensions"),
        (1.5, 1, {}, "grid 1.5 is not a whole number"),
        (1, (2.0, 1), {}, r"block \(2.0, 1\) is not made of whole numbers"),
        ("2", 1, {}, "grid '2' is not a whole number"),
        (None, 1, {}, "grid None is not a whole number"),
        (1, 1, {"shared_bytes": 1.5}, "shared_bytes is 1.5"),
        (1, 1, {"shared_bytes": 164 * 1024}, "sm_80 has 166912"),
        (1, 1, {"shared_bytes": -1}, "negative"),
        (1, 1, {"engine": "fast"}, "engine is 'fast'"),
        (1, 1, {"schedule": "random"}, "schedule"),
        (1, 1, {"budget": 0}, "budget is 0"),
    ],
)
def test_impossible_launches_are_refused(grid, block, options, message):
    with pytest.raises(simulator.LaunchError, match=message) as caught:
        kernel().launch(grid, block, **options)
    assert "\n" not in str(caught.value)


def test_sizes_may_be_integers_of_numpy():
    report = kernel().launch(np.int64(2), (np.int32(3), 1), shared_bytes=np.int64(16), engine="interpreter")
    assert (report.grid, report.block) == ((2, 1, 1), (3, 1, 1))


@pytest.mark.parametrize(("arch", "kilobytes"), [("sm_80", 163), ("sm_86", 99), ("sm_89", 99), ("sm_90", 227)])
def test_shared_memory_limits_per_architecture(arch, kilobytes):
    head = ".extern .shared .align 16 .b8 d[];\n"
    body = "mov.u32 %r1, d; st.shared.u32 [%r1], 1;"
    fits = kernel(body, arch=arch, head=head)
    assert fits.launch(1, 1, shared_bytes=kilobytes * 1024, engine="interpreter").ok
    with pytest.raises(simulator.LaunchError, match=arch):
        fits.launch(1, 1, shared_bytes=kilobytes * 1024 + 1)


def test_thread_limits_of_the_kernel_itself():
    text = entry("").replace("k()", "k() .reqntid 64, 1, 1")
    assert simulator.load(text)["k"].launch(1, 64, engine="interpreter").ok
    with pytest.raises(simulator.LaunchError, match="reqntid"):
        simulator.load(text)["k"].launch(1, 32)
    text = entry("").replace("k()", "k() .maxntid 64, 1, 1")
    with pytest.raises(simulator.LaunchError, match="maxntid"):
        simulator.load(text)["k"].launch(1, 65)


def test_module_variables_keep_their_values():
    module = simulator.load(entry("atom.global.add.u32 %r1, [n], 5; ld.param.u64 %rd1, [o]; st.global.u32 [%rd1], %r1;",
                                  ".param .u64 o", ".global .u32 n = 3;"))  # fmt: skip
    target = np.zeros(1, np.uint32)
    seen = []
    for _ in range(3):
        assert module["k"].launch(1, 1, target, engine="interpreter").ok
        seen.append(int(target[0]))
    assert seen == [3, 8, 13]


def test_modules_are_mappings_and_name_what_they_have():
    module = simulator.load(entry(""))
    assert list(module) == ["k"]
    with pytest.raises(KeyError, match="this module has k"):
        module["missing"]
    assert "k" in repr(module)
