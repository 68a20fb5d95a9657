from functools import partial

from edit import edited

edit = partial(edited, "17_decode_a_tile")

WRONG = [
    (
        "race",
        "between clearing and scattering",
        None,
        edit(("    barrier()\n    for i in range(t", "    for i in range(t")),
    ),
    ("race", "between scattering and reading", None, edit(("item)\n    barrier()\n", "item)\n"))),
    ("wrong", "expected", None, edit(("range(t, count, 128)", "range(t, count - 128, 128)"))),
    (
        "race",
        "two threads race here for the same shared memory",
        None,
        edit(("2 * (item >> 16)), 0, item", "2 * (item & 0x1FFF)), 0, item >> 16")),
    ),
    ("alignment", "base + 2 * location", "store_shared_half", edit(("2 * (item >> 16)", "(item >> 16)"))),
    ("bounds", "of `items`", "item = items[i]", edit(("range(t, count, 128)", "range(t, count + 128, 128)"))),
]
