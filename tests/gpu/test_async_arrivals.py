"""cp.async.mbarrier.arrive: what an arrival that follows the copies releases, and copies that no wait sees land."""

import numpy as np
import pytest
from ptx_text import run

PRODUCER_AND_CONSUMER = """
.shared .align 16 .b8 s[256]; .shared .align 8 .b8 b[8];
mov.u32 %r1, %tid.x; mov.u32 %r2, s; mov.u32 %r3, b;
setp.eq.u32 %p1, %r1, 0; setp.eq.u32 %p2, %r1, 32;
@%p1 mbarrier.init.shared.b64 [%r3], 1;
bar.sync 0;
@!%p1 bra CONSUMER;
cp.async.ca.shared.global [%r2], [%rd0], 4;
EARLY
cp.async.mbarrier.arrive.noinc.shared.b64 [%r3];
LATE
bra END;
CONSUMER: @!%p2 bra END;
WAIT: mbarrier.test_wait.parity.shared.b64 %p3, [%r3], 0;
@!%p3 bra WAIT;
ld.shared.u32 %r4, [%r2]; ld.shared.u32 %r5, [%r2+64]; add.u32 %r4, %r4, %r5;
st.global.u32 [%rd0+4], %r4;
END:
"""
STORE = "st.shared.u32 [%r2+64], 5;"


@pytest.mark.parametrize(("place", "found"), [("EARLY", set()), ("LATE", {"race"})])
def test_an_arrival_releases_what_came_before_it_and_nothing_later(place, found):
    body = PRODUCER_AND_CONSUMER.replace(place, STORE).replace("EARLY", "").replace("LATE", "")
    data = np.array([7, 0], np.uint32)
    report = run(body, data, block=64)
    assert {hazard.kind for hazard in report.hazards} == found
    assert data[1] == 12


def test_a_copy_whose_mbarrier_nobody_waits_for():
    body = """
.shared .align 16 .b8 s[128]; .shared .align 8 .b8 b[8];
mov.u32 %r1, %tid.x; shl.b32 %r2, %r1, 2; mov.u32 %r3, s; add.u32 %r2, %r2, %r3; mov.u32 %r3, b;
setp.eq.u32 %p1, %r1, 0;
@%p1 mbarrier.init.shared.b64 [%r3], 32;
bar.sync 0;
cp.async.ca.shared.global [%r2], [%rd0], 4;
cp.async.mbarrier.arrive.noinc.shared.b64 [%r3];
"""
    (hazard,) = run(body, np.zeros(1, np.uint32)).hazards
    assert (hazard.kind, hazard.count, "never waited for" in str(hazard)) == ("pending", 32, True)
