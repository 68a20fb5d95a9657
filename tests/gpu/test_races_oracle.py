"""Random straight-line programs against a brute-force oracle: the whole partial order of all accesses, as a graph.

The oracle takes from the simulator only the order in which instructions were executed.  It links all events of a
launch by program order, barriers and messages, closes the graph, and lists every unordered conflicting pair.
"""

import random
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pytest
from ptx_text import HEAD, REGISTERS
from test_engine import agree, copied, request

from loadsparse.gpu.simulator.interpreter.machine import Machine

BLOCKS = 3
GUARDS = {
    "": lambda block, thread: True,
    "@%p1 ": lambda block, thread: thread % 2 == 1,
    "@%p2 ": lambda block, thread: thread < 32,
    "@%p3 ": lambda block, thread: block == 0,
    "@%p4 ": lambda block, thread: thread == 5,
    "@!%p4 ": lambda block, thread: thread != 5,
}
PREAMBLE = (
    "ld.param.u64 %rd0, [p0]; ld.param.u64 %rd1, [p1]; mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x;"
    "mov.u32 %r3, %ntid.x; mad.lo.u32 %r4, %r2, %r3, %r1; and.b32 %r5, %r1, 1; setp.eq.u32 %p1, %r5, 1;"
    "setp.lt.u32 %p2, %r1, 32; setp.eq.u32 %p3, %r2, 0; setp.eq.u32 %p4, %r1, 5;"
)


@dataclass(frozen=True)
class Operation:
    """An access of word (number * stride + shift) mod words, or a barrier or fence; `value`: a constant, or None."""

    name: str
    guard: str = ""
    space: str = ""
    stride: int = 0
    shift: int = 0
    words: int = 8
    value: int | None = None

    @property
    def parts(self):
        return self.name.split(".")

    @property
    def strong(self):
        return self.parts[0] == "atom" or bool({"volatile", "relaxed", "acquire", "release"} & set(self.parts))

    @property
    def wide(self):
        return "cta" not in self.parts

    @property
    def reads(self):
        return self.parts[0] in ("ld", "atom")

    @property
    def writes(self):
        return self.parts[0] in ("st", "atom")

    def text(self):
        """One line of PTX."""
        if self.name == "handoff":  # warp 0 arrives, the rest waits for it
            return "@%p2 bra A{n}; bar.sync {b}, {threads}; bra.uni B{n}; A{n}: bar.arrive {b}, {threads}; B{n}:"
        if not self.space:
            return f"{self.guard}{self.name};"
        place = f"mad.lo.u32 %r10, %r4, {self.stride}, {self.shift}; and.b32 %r10, %r10, {self.words - 1}; shl.b32 %r10, %r10, 2;"
        at = "[%r10]"
        if self.space == "global":
            place += " cvt.u64.u32 %rd10, %r10; add.u64 %rd10, %rd10, %rd0;"
            at = "[%rd10]"
        value = "%r4" if self.value is None else str(self.value)
        kind, *rest = self.parts
        name = ".".join([kind, *rest[: rest.index("op")], self.space, *rest[rest.index("op") + 1 :]])
        operands = {"ld": f"%r11, {at}", "st": f"{at}, {value}", "atom": f"%r11, {at}, {value}"}[kind]
        return f"{place} {self.guard}{name} {operands};"


def draw(seed):
    """A random program; `op` in a name is where the state space goes."""
    rng = random.Random(seed)
    orders = ["ld.op.u32", "st.op.u32"]
    strong = ["ld.volatile.op.u32", "st.volatile.op.u32", "atom.relaxed.gpu.op.add.u32"]
    if seed % 3:
        strong += ["ld.acquire.gpu.op.u32", "st.release.gpu.op.u32", "atom.acq_rel.gpu.op.add.u32"]
    if seed % 3 == 2:
        strong += ["atom.relaxed.cta.op.add.u32", "st.release.cta.op.u32", "ld.acquire.cta.op.u32"]
    result = []
    for _ in range(rng.randrange(5, 14)):
        pick = rng.random()
        if pick < 0.22:
            result.append(Operation("bar.sync 0"))
        elif pick < 0.28:
            result.append(Operation("bar.warp.sync -1"))
        elif pick < 0.32:
            result.append(Operation("handoff"))
        elif pick < 0.44 and seed % 3:
            result.append(
                Operation(rng.choice(["membar.gl", "membar.cta", "fence.acq_rel.gpu"]), rng.choice([*GUARDS]))
            )
        else:
            space = rng.choice(["global", "global", "shared"])
            name = rng.choice(orders if rng.random() < 0.5 else strong)
            words = rng.choice([1, 4, 256, 256])
            shift = rng.choice([0, 0, 1, 32])
            result.append(
                Operation(
                    name, rng.choice([*GUARDS]), space, rng.choice([0, 1, 1]), shift, words, rng.choice([None, 7])
                )
            )
    return result


def program(operations, threads):
    """(PTX, {line: operation number})"""
    head = f"{HEAD}.visible .entry k(.param .u64 p0, .param .u64 p1)\n{{\n{REGISTERS}.shared .align 16 .b8 s[1024];\n"
    lines = {}
    text = head + PREAMBLE + "\n"
    for number, operation in enumerate(operations):
        lines[text.count("\n") + 1] = number
        text += (
            operation.text()
            .replace("{n}", str(number))
            .replace("{b}", str(number % 15 + 1))
            .replace("{threads}", str(threads))
            + "\n"
        )
    return text + "ret;\n}\n", lines


class Oracle:
    """The graph of a trace: nodes in the order of execution, `before[n]` the nodes that lead to n."""

    def __init__(self):
        self.before = []
        self.last = {}
        self.accesses = []
        """(node, block, thread, operation number, memory, word, benign store)"""
        self.messages = defaultdict(list)
        self.fenced, self.seen = {}, defaultdict(list)
        self.memory = {}

    def node(self, *threads, after=()):
        """A new event of these threads, after their last ones and further nodes."""
        number = len(self.before)
        links = [*after, *(self.last[t] for t in threads if t in self.last)]
        self.before.append(links)
        self.last.update(dict.fromkeys(threads, number))
        return number

    def received(self, memory, word, block, wide):
        scopes = [block, "all"] if wide and memory == "global" else [block]
        return {scope: self.messages[memory, word, scope] for scope in scopes}

    def order(self, operation, key, memory, word):
        """The node at which a strong access of a thread acquires and releases."""
        scopes = self.received(memory, word, key[0], operation.wide)
        node = self.node(key)
        if operation.reads:
            for scope, nodes in scopes.items():
                if {"acquire", "acq_rel"} & set(operation.parts):
                    self.before[node].extend(nodes)
                else:
                    self.seen[key, scope] += nodes
        if operation.writes:
            for scope in scopes:
                fence = self.fenced.get((key, scope == "all"))
                source = node if {"release", "acq_rel"} & set(operation.parts) else fence
                if source is not None:
                    self.messages[memory, word, scope].append(source)

    def access(self, number, operation, block, thread, global_number):
        key = block, thread
        memory = "global" if operation.space == "global" else f"shared {block}"
        word = (global_number * operation.stride + operation.shift) % operation.words
        if operation.strong and operation.writes:
            self.order(operation, key, memory, word)
        held = self.memory.get((memory, word))
        value = global_number if operation.value is None else operation.value
        if operation.writes:
            self.memory[memory, word] = value if operation.parts[0] == "st" else (held or 0) + value
        self.accesses.append((self.node(key), block, thread, number, memory, word, held == value))
        if operation.strong and not operation.writes:
            self.order(operation, key, memory, word)

    def fence(self, operation, key):
        wide = "cta" not in operation.name
        scopes = [key[0], "all"] if wide else [key[0]]
        node = self.node(key, after=[n for scope in scopes for n in self.seen.pop((key, scope), [])])
        for scope in scopes:
            self.fenced[key, scope == "all"] = node

    def ordered(self):
        """reach[n, m]: m leads to n."""
        reach = np.zeros((len(self.before), len(self.before)), bool)
        for node, links in enumerate(self.before):
            for link in set(links):
                reach[node] |= reach[link]
                reach[node, link] = True
        return reach

    def pairs(self, operations):
        """{(later, earlier, memory, word): must be found} of all unordered conflicting accesses (block, thread,
        operation).  A store that repeats the last one need not be found to race with what came before that."""
        reach = self.ordered()
        found = {}
        places = defaultdict(list)
        for access in self.accesses:
            places[access[4], access[5]].append(access)
        for (memory, word), accesses in places.items():
            for n, (node, block, thread, number, _, _, unchanged) in enumerate(accesses):
                mine = operations[number]
                last = {}  # a thread's remembered strong accesses
                for m, (other, b, t, k, *_) in enumerate(accesses[:n]):
                    if operations[k].strong:
                        last[b, t, operations[k].writes] = m, reach[node, other] or (b, t) == (block, thread)
                seen = max((m for m, ordered in last.values() if ordered), default=-1)
                for m, (other, b, t, k, *_) in enumerate(accesses[:n]):
                    theirs = operations[k]
                    if (b, t) == (block, thread) or not (mine.writes or theirs.writes) or reach[node, other]:
                        continue
                    near = b == block or (mine.wide and theirs.wide)
                    if mine.strong and theirs.strong and near:
                        continue
                    if theirs.strong and theirs.writes and m < seen:
                        continue
                    if number == k and not mine.strong and unchanged:
                        continue
                    repeats = unchanged and not mine.strong and any(a[3] == number for a in accesses[m + 1 : n])
                    found[(block, thread, number), (b, t, k), memory, word] = not repeats
        return found


class Traced(Machine):
    """Every event of a race, and the order of execution."""

    def __init__(self, asked, oracle, operations, lines):
        super().__init__(asked, self.watch)
        self.oracle, self.operations, self.lines = oracle, operations, lines
        self.events = []
        self.waiting = defaultdict(set)
        self.arrived = defaultdict(list)

    def hazard(self, kind, instruction, other, block, thread, address=None, size=None, detail="", *theirs):
        assert kind == "race"
        mine, line = (self.lines[self.instructions[i].line] for i in (instruction, other))
        memory = "global" if address >> 36 else f"shared {block}"
        word = (address & (1 << 36) - 1) // 4
        self.events.append(((block, thread, mine), (*theirs, line), memory, word))
        super().hazard(kind, instruction, other, block, thread, address, size, detail, *theirs)

    def watch(self, event):
        number = self.lines.get(event.instruction.line)
        if number is None or event.instruction.name in ("mad", "and", "shl", "cvt", "add", "bra", "ret"):
            return
        operation = self.operations[number]
        threads = [event.warp * 32 + lane for lane in np.flatnonzero(event.active).tolist()]
        keys = [(event.block, t) for t in threads if GUARDS[operation.guard](event.block, t)]
        size = self.request.block[0]
        if operation.name.startswith("bar.sync"):
            self.arrived[event.block] += keys
            if len(self.arrived[event.block]) == size:
                self.oracle.node(*self.arrived.pop(event.block))
        elif operation.name == "handoff":
            self.handoff(event, number, keys, size)
        elif operation.name.startswith("bar.warp"):
            self.oracle.node(*keys)
        elif operation.space:
            for block, thread in keys:
                self.oracle.access(number, operation, block, thread, block * size + thread)
        else:
            for key in keys:
                self.oracle.fence(operation, key)

    def handoff(self, event, number, keys, size):
        """Everyone's last node before leads to those that wait."""
        here = self.arrived[event.block, number]
        here += [(key, "arrive" in event.instruction.modifiers, self.oracle.last.get(key)) for key in keys]
        if len(here) == size:
            origins = [node for _, _, node in here if node is not None]
            for key, arrives, _ in here:
                if not arrives:
                    self.oracle.node(key, after=origins)


def judged(seed):
    """(events of the interpreter, pairs of the oracle) after both engines agreed."""
    operations = draw(seed)
    threads = 64
    text, lines = program(operations, threads)
    asked = request(text, (BLOCKS, 1, 1), (threads, 1, 1), [np.zeros(256, np.uint32), np.zeros(1, np.uint32)])
    agree(asked)
    oracle = Oracle()
    machine = Traced(copied(asked), oracle, operations, lines)
    machine.run()
    return machine.events, oracle.pairs(operations)


@pytest.mark.parametrize("seed", range(60))
def test_every_reported_race_is_one_and_no_granule_is_missed(seed):
    events, pairs = judged(seed)
    assert set(events) <= set(pairs)
    assert {event[2:] for event in events} >= {pair[2:] for pair, sure in pairs.items() if sure}


def test_the_programs_are_of_both_kinds():
    racy = [bool(judged(seed)[1]) for seed in range(24)]
    assert 4 <= sum(racy) <= 20
