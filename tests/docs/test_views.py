"""Pictures that move show what the library computes: read back from their SVG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from loadsparse.gpu.simulator.interpreter.counters import wavefronts as counted
from loadsparse.reference import pruning, routing, weights
from loadsparse.reference.formats.tiled_csl import TiledCSL
from loadsparse.reference.tensorcore import fragments
from loadsparse.theory import lagrangian
from loadsparse.tutorials import views
from loadsparse.tutorials.views import banks


def drawing(film: views.Film) -> list[ET.Element]:
    """The parts of the drawing; it must be well-formed XML."""
    found = re.search(r"<svg.*?</svg>", film.html(), re.DOTALL)
    assert found is not None
    return list(ET.fromstring(found[0]))


@pytest.mark.parametrize("shape", fragments.SHAPES, ids=lambda shape: f"{shape.name}-{shape.inputs[0]}-{shape.sparse}")
def test_every_element_carries_its_lane(shape: fragments.Shape) -> None:
    film = views.fragment_lanes(shape)
    boxes = [part for part in drawing(film) if part.tag == "rect"]
    assert len(boxes) == shape.a.row.size + shape.b.row.size + shape.c.row.size
    for lane in range(32):
        marked = sum(part.get("data-on") == str(lane) for part in boxes)
        assert marked == sum(part.row.shape[1] for part in (shape.a, shape.b, shape.c))
    places = {(part.get("x"), part.get("y")) for part in boxes}
    assert len(places) == len(boxes)


def test_wavefronts_are_those_of_the_simulator() -> None:
    rng = np.random.default_rng(0)
    draws = [[int(pattern(lane)) for lane in range(32)] for pattern in banks.PATTERNS.values()]
    draws += [rng.integers(0, high, 32).tolist() for high in (8, 40, 200, 4000) for _ in range(5)]
    for words in draws:
        waves = 1 + max(wave for wave, _ in banks.wavefronts(words))
        assert waves == counted(np.arange(32), 4 * np.array(words), 4)[0]
    assert "32 wavefronts" in views.bank_hits().captions[4]
    assert "1 wavefront." in views.bank_hits().captions[5]


def test_a_tile_is_unpacked_by_its_stores() -> None:
    sample = pruning.magnitude(weights.sample()["attn_output"], 0.8)
    film = views.tile_unpacked(sample, tile=10)
    marked = [part for part in drawing(film) if part.tag == "rect" and part.get("data-on")]
    row, column = 10 // 9 * 128, 10 % 9 * 64
    inside = sample[row : row + 16, column : column + 64]
    assert np.count_nonzero(inside) <= len(marked) <= np.count_nonzero(inside) + 3  # pads are written, too
    whole = TiledCSL.encode(sample).store_wavefronts()
    waves = [int(found[1]) for caption in film.captions[1:] if (found := re.search(r"(\d+) wavefront", caption))]
    assert sum(waves) == whole.achieved[10]
    with pytest.raises(ValueError, match="tiles 0 to"):
        views.tile_unpacked(sample, tile=99)


def test_tokens_stand_where_they_are_routed() -> None:
    rng = np.random.default_rng(1)
    scores = rng.random((20, 4)) - 0.1 * np.arange(4)
    film = views.tokens_moving(scores, steps=6)
    dots = [part for part in drawing(film) if part.tag == "circle"]
    for frame in range(7):
        assert sum(part.get("data-at") == str(frame) for part in dots) == 20
    loads = routing.loads(routing.top_k(scores, 1), 4)
    assert f"loads {', '.join(map(str, loads))} " in film.captions[0]
    first = [float(part.get("cx", "nan")) for part in dots if part.get("data-at") == "0"]
    assert [first.count(70 * (expert + 0.5)) for expert in range(4)] == loads.tolist()


def test_the_dual_is_the_dual() -> None:
    scores = np.random.default_rng(2).random((9, 2)) + np.array([0.4, 0])
    film = views.dual_falling(scores, steps=5)
    assert f"D = {float(lagrangian.dual(scores, 1, np.zeros(2))):.4f}" in film.captions[0]
    least = min(float(lagrangian.dual(scores, 1, np.array([gap, 0]))) for gap in np.linspace(-2, 2, 4001))
    told = re.search(r"least value is (\d+\.\d+)", film.captions[0])
    assert told is not None
    assert float(told[1]) == pytest.approx(least, abs=2e-3 * 9)  # the grid is 1e-3 apart, the slope at most 9
    assert float(told[1]) <= least + 1e-4
    with pytest.raises(ValueError, match="two experts"):
        views.dual_falling(np.ones((3, 3)))


def test_a_film_says_what_it_shows_and_stays_inside_its_frame() -> None:
    with pytest.raises(ValueError, match="alternative text"):
        views.Film("t", " ", 1, 1, ["now"])
    film = views.Film("a <b>", 'say "it" & </script>', 10, 10, ["</script><b>", "two\nlines \\"])
    film.text(1, 1, "<x>")
    page = film.html()
    assert page.count("</script>") == 1
    assert "<b>" not in page.replace("<strong>", "")
    assert film._repr_html_() == page
