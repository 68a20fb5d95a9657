"""Pictures that move: a slider over drawings made from real data, in a notebook or on a page, without a network.

Each view is a `Film`; the last line of a notebook cell shows it, `film.html()` puts it on a page. Keys: the slider and
the buttons are ordinary form controls. What is marked is marked by a thick outline and by the caption, not by colour.
"""

from loadsparse.tutorials.views.banks import bank_hits
from loadsparse.tutorials.views.duals import dual_falling
from loadsparse.tutorials.views.film import Film
from loadsparse.tutorials.views.lanes import fragment_lanes
from loadsparse.tutorials.views.tiles import tile_unpacked
from loadsparse.tutorials.views.tokens import tokens_moving

__all__ = ["Film", "bank_hits", "dual_falling", "fragment_lanes", "tile_unpacked", "tokens_moving"]
