"""An exception in the main thread ends a native launch promptly and without harm; the next launch is right."""

import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from ptx_text import entry

PARAMETERS = ".param .u64 p0, .param .u32 p1"
HEAD = (
    "ld.param.u64 %rd0, [p0]; ld.param.u32 %r1, [p1]; mov.u32 %r2, %tid.x; mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ntid.x;"
    "mad.lo.u32 %r5, %r3, %r4, %r2; and.b32 %r6, %r5, 1023; mul.wide.u32 %rd1, %r6, 4; add.u64 %rd2, %rd0, %rd1;\n"
)
LOOP = "mov.u32 %r7, 0; L: add.u32 %r7, %r7, 1; setp.ne.u32 %p1, %r7, %r1; @%p1 bra L; st.global.u32 [%rd2], %r7;"
KERNELS = {
    # p1 iterations; 0 wraps: 2**32 of them
    "loop": LOOP,
    "barrier in the loop": LOOP.replace("L: ", "L: bar.sync 0; "),
    "divergent": "mov.u32 %r7, %r1; setp.gt.u32 %p2, %r2, 7; @%p2 bra M;" + LOOP.replace("st.", "M: st."),
    "observable order": "atom.global.add.u32 %r8, [%rd0+4092], 0;" + LOOP,
    # blocks without any backward branch
    "many blocks": "st.global.u32 [%rd2], %r1;",
}

SCRIPT = """
import signal, sys, time
import numpy as np
from loadsparse.gpu import simulator
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may have had it ignored
ptx, grid, block, caught = sys.stdin.read(), int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
kernel = next(iter(simulator.load(ptx, "sm_80").values()))
short = np.zeros(1024, np.uint32)
kernel.launch(1, block, short, np.uint32(7), engine="llvm")
class Alarm(Exception):
    pass
def ring(number, frame):
    raise Alarm
if caught == "alarm":
    signal.signal(signal.SIGINT, ring)
for _ in range(2):
    print("ready", flush=True)
    try:
        kernel.launch(grid, block, np.zeros(1024, np.uint32), np.uint32(0), engine="llvm")
        print("not interrupted")
    except (KeyboardInterrupt, Alarm) as error:
        if caught == "no":
            raise
        junk = [np.full(1 << k, 255, np.uint8) for k in range(8, 20)]
        print(type(error).__name__, flush=True)
    again = np.zeros(1024, np.uint32)
    report = kernel.launch(4, block, again, np.uint32(7), engine="llvm")
    assert report.engine == "llvm" and not report.hazards, report
    assert (again[: 4 * block] == 7).all() and not again[4 * block :].any(), again
print("right", flush=True)
"""


@contextmanager
def launching(body, grid, caught):
    """The script in another process, which is killed if it has not ended after a while."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(grid), "64", caught],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        watchdog = threading.Timer(30, child.kill)
        watchdog.start()
        try:
            child.stdin.write(entry(HEAD + body, PARAMETERS))
            child.stdin.close()
            yield child
        finally:
            watchdog.cancel()
            child.kill()


def interrupt(child):
    """Waits for a launch and interrupts it."""
    assert child.stdout.readline() == "ready\n", child.stderr.read()
    time.sleep(0.4)
    child.send_signal(signal.SIGINT)


@pytest.mark.parametrize("name", KERNELS)
def test_two_interrupts_are_survived(name):
    with launching(KERNELS[name], 2**31 - 1 if name == "many blocks" else 6, "yes") as child:
        for _ in range(2):
            interrupt(child)
            sent = time.monotonic()
            assert child.stdout.readline() == "KeyboardInterrupt\n", child.stderr.read()
            assert time.monotonic() - sent < 1
        assert child.stdout.read() == "right\n", child.stderr.read()
    assert child.returncode == 0


@pytest.mark.parametrize("grid", [1, 6])
def test_an_interrupt_that_nobody_catches_ends_the_process(grid):
    with launching(LOOP, grid, "no") as child:
        interrupt(child)
        errors = child.stderr.read()
        status = child.wait()
    assert status in (130, -signal.SIGINT), errors
    assert errors.endswith("KeyboardInterrupt\n"), errors


def test_a_signal_handler_that_raises_ends_the_launch():
    with launching(LOOP, 6, "alarm") as child:
        for _ in range(2):
            interrupt(child)
            assert child.stdout.readline() == "Alarm\n", child.stderr.read()
        assert child.stdout.read() == "right\n", child.stderr.read()
    assert child.returncode == 0
