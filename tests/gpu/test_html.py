"""The page is one file without a network, escapes what it is given, and its links lead to the lines they name."""

# ruff: noqa: E501  (scripts of one line)

import re
import subprocess
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import BROWSER, FLAGS

from loadsparse.gpu import compiler, profiling, sass, simulator
from loadsparse.gpu.launch import Step
from loadsparse.gpu.simulator import html, roofline
from loadsparse.gpu.simulator.hot import cost

SOURCE = r"""
extern "C" __global__ void reverse(float *x) {
    __shared__ float s[64];
    s[threadIdx.x * 2 % 64] = x[threadIdx.x];
    x[threadIdx.x] = s[63 - threadIdx.x] + 1.0f;
}"""


@pytest.fixture(scope="module")
def found():
    ptx = compiler.cuda(SOURCE)
    step = Step(ptx, "reverse", (2, 1, 1), (64, 1, 1), 0, ("x",))
    job = profiling.Job("reverse <b>&", "sm_80", (step,), {"x": np.arange(64, dtype=np.float32)})
    return profiling.profile(job, sources={"kernel.cu": SOURCE}, explored=2)


@pytest.fixture(scope="module")
def page(found, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    profiling.write_html(found, path)
    assert [item.name for item in path.parent.iterdir()] == ["report.html"], "no temporary file is left"
    return path


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids, self.targets, self.open = [], [], []

    def handle_starttag(self, tag, attributes):
        held = dict(attributes)
        if "id" in held:
            self.ids.append(held["id"])
        if tag == "a":
            self.targets.append(held["href"])
        assert tag not in ("img", "link", "iframe", "object"), f"<{tag}> may load something"
        assert tag != "script" or not held, "a script from elsewhere"
        assert not any(name.startswith("on") for name in held), "a script that no policy admits"


def test_self_contained_and_every_link_arrives(page):
    text = page.read_text(encoding="utf-8")
    links = Links()
    links.feed(text)
    assert len(links.ids) == len(set(links.ids))
    assert len(links.targets) > 20
    assert all(target.startswith("#") and target[1:] in links.ids for target in links.targets)
    assert "://" not in re.sub(r"content=\"[^\"]*\"", "", text)
    assert "default-src 'none'" in text


def test_the_policy_admits_the_one_script_by_its_hash(page):
    text = page.read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in text


def test_a_hazard_leads_to_its_line(found, page):
    text = page.read_text(encoding="utf-8")
    (race,) = [h for h in found.sections[0].report.hazards if h.kind == "race" and "after write" in h.message][:1]
    assert f'<strong>race</strong> at <a href="#k0-p{race.line}">' in text
    row = re.search(rf"<tr id=k0-p{race.line} class='(\w*)'[^>]*>(.*?)</tr>", text)
    assert row[1] == "wrong"
    assert race.ptx.split()[0] in row[2]


class Rows(HTMLParser):
    """The rows of the code views: (view, attributes, text)."""

    def __init__(self):
        super().__init__()
        self.view, self.rows = None, []

    def handle_starttag(self, tag, attributes):
        held = dict(attributes)
        if tag == "div" and held.get("role") == "region":
            self.view = held["aria-label"]
        elif tag == "tr" and "data-s" in held:
            self.rows.append((self.view, held, []))

    def handle_data(self, data):
        if self.rows:
            self.rows[-1][2].append(data)


def test_rows_say_what_belongs_together(page):
    """What the page's script goes by, without a browser: the rows of one source line, in PTX and in SASS."""
    rows = Rows()
    rows.feed(page.read_text(encoding="utf-8"))
    (place,) = {held["data-s"] for view, held, words in rows.rows if view == "Source" and "63 -" in " ".join(words)}
    texts = {
        view: " ".join(" ".join(words) for v, held, words in rows.rows if (v, held["data-s"]) == (view, place))
        for view in ("PTX", "SASS")
    }
    assert [x in texts["PTX"] for x in ("ld.shared", "add.f32", "st.global", "st.shared")] == [True, True, True, False]
    assert [x in texts["SASS"] for x in ("LDS", "FADD", "STG", "STS")] == [True, True, True, False]
    ptx = {held["data-p"]: " ".join(words) for view, held, words in rows.rows if view == "PTX"}
    stores = [ptx[held["data-p"]] for view, held, words in rows.rows if view == "SASS" and "STS" in " ".join(words)]
    assert stores
    assert all("st.shared" in store for store in stores)


def test_names_are_escaped(page):
    text = page.read_text(encoding="utf-8")
    assert "reverse &lt;b&gt;&amp;" in text
    assert "<b>" not in text


def test_all_parts_are_there(page):
    text = page.read_text(encoding="utf-8")
    for part in (
        "Hazards",
        "Hot lines",
        "Occupancy",
        "Timeline of block 0",
        "Where the lanes go",
        "Metrics",
        "kernel.cu",
    ):
        assert part in text, part
    assert text.count("prefers-color-scheme") == 1


def test_a_plain_report_writes_a_page_too(tmp_path):
    report = simulator.load(compiler.cuda(SOURCE))["reverse"].launch(1, 64, np.zeros(64, np.float32))
    report.to_html(tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Hot lines" in text
    assert html.page([html.Panel(report)]) == text


def test_hostile_ptx_cannot_write_into_the_page(tmp_path):
    ptx = '.version 8.0\n.target sm_80\n.address_size 64\n.file 1 "<script>alert(1)</script>.cu"\n.visible .entry k()\n{\n.loc 1 1 1\nret;\n}\n'
    report = simulator.load(ptx)["k"].launch(1, 32)
    code = (sass.Instruction(0, "<script>", 6),)
    text = html.page([html.Panel(report, machine=code, note="<script>")], "<script>", ["<script>"])
    assert text.count("<script") == 1
    assert text.count("&lt;script&gt;") >= 5


def test_cost_counts_every_issue():
    row = {"executions": 10, "wavefronts": 25, "sectors": 0, "requests": 0}
    assert cost(row) == 25
    assert cost({"executions": 10, "wavefronts": 0, "sectors": 40, "requests": 10}) == 40
    assert cost({"executions": 10, "wavefronts": 0, "sectors": 0, "requests": 0}) == 10


def test_operations_and_bytes_by_hand():
    def row(ptx, executions, threads, sectors=0):
        return {"ptx": ptx, "executions": executions, "threads": threads, "sectors": sectors}

    here = roofline.point(
        [
            row("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f1}, {%r1}, {%r2}, {%f2}", 3, 96),
            row("@%p1 fma.rn.f32 %f1, %f2, %f3, %f4", 2, 50),
            row("add.f16x2 %r1, %r2, %r3", 1, 32),
            row("add.u32 %r1, %r2, %r3", 9, 288),
            row("ld.global.f32 %f1, [%rd1]", 1, 32, 4),
        ]
    )
    assert (here.tensor_flop, here.plain_flop, here.bytes) == (3 * 2 * 16 * 8 * 16, 2 * 50 + 2 * 32, 128)
    roof = roofline.ROOFS["sm_80"]
    assert here.bound(roof) == "memory"
    assert here.ceiling(roof) == roof.bandwidth * here.intensity


needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: the page is not clicked")


def browse(page, folder, script, *, width=390):
    """What `script` returns after it ran in a frame with the page in headless Chromium; `d` is the page's document."""
    driver = folder / "driver.html"
    driver.write_text(
        f"<!doctype html><iframe id=f width={width} height=844></iframe><pre id=o>waiting</pre><script>"
        "const f=document.getElementById('f');const wait=()=>new Promise(r=>setTimeout(r,200));f.onload=async()=>{"
        f"const d=f.contentDocument,w=f.contentWindow;document.getElementById('o').textContent=await (async()=>{{{script}}})()}};"
        f"f.src='{page.as_uri()}'</script>"
    )
    done = subprocess.run(
        [BROWSER, *FLAGS, "--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}",
         "--virtual-time-budget=6000", "--dump-dom", driver.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    told = re.search(r"<pre id=\"o\">(.*?)</pre>", done.stdout)
    assert told is not None, done.stderr[-500:]
    return told[1]


@needs_browser
@pytest.mark.filterwarnings("ignore")
def test_a_browser_follows_the_link(found, page, tmp_path):
    """A click on a hazard's link: the line it names is in view, outlined, on a phone's width, and its counterparts are
    marked; then the arrow keys choose the next line."""
    line = found.sections[0].report.hazards[0].line
    told = browse(
        page, tmp_path,
        "d.querySelector('.hazards a').click();await wait();const t=d.querySelector('tr:target'),b=t.getBoundingClientRect();"
        "const on=n=>d.querySelector(`[aria-label=${n}]`).querySelectorAll('tr.on').length;"
        "const first=['id='+t.id,'seen='+(b.top>=0&&b.top<844),'wide='+(d.documentElement.scrollWidth<=390),"
        "'outline='+w.getComputedStyle(t).outlineStyle,'source='+on('Source'),'sass='+(on('SASS')>0)];"
        "d.querySelector('[aria-label=PTX]').dispatchEvent(new w.KeyboardEvent('keydown',{key:'ArrowDown',bubbles:true}));"
        "await wait();const next=d.querySelector('[aria-label=PTX] tr.one');"
        "return [...first,'next='+(t.nextElementSibling===next),'said='+d.querySelector('[role=status]').textContent.includes('SASS')].join(' ')",
    )  # fmt: skip
    assert told == f"id=k0-p{line} seen=true wide=true outline=solid source=1 sass=true next=true said=true"


@needs_browser
@pytest.mark.filterwarnings("ignore")
def test_a_browser_marks_what_a_source_line_became(page, tmp_path):
    """A click on a source line marks all PTX lines and SASS instructions that came from it."""
    told = browse(
        page, tmp_path,
        "const row=[...d.querySelectorAll('[aria-label=Source] tr')].find(r=>r.textContent.includes('63 - threadIdx.x'));row.click();"
        "const texts=n=>[...d.querySelectorAll(`[aria-label=${n}] tr.on`)].map(r=>r.cells[r.cells.length-1].textContent).join();"
        "return ['ld.shared','st.global','st.shared'].map(x=>texts('PTX').includes(x)).join()+' '+"
        "['LDS','STG','STS'].map(x=>texts('SASS').includes(x)).join()",
        width=1400,
    )  # fmt: skip
    assert told == "true,true,false true,true,false"
