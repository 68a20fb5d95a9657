"""The exact end of the balanced assignment: shortest augmenting paths between experts, in integers.

Given prices near the optimum and an assignment that is optimal for its own loads, excess tokens travel over experts:
the arc k -> j is the token that loses least by moving from k to j. Only tokens near the boundary of their choice take
part; how far the prices may then move before another token matters is known, and a round ends there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, prange

Array = npt.NDArray[Any]
FAR = np.int64(2**61)


@njit(cache=True)
def boundary_of(scores, first, last, factor, price, choices, worst_in, best_out):
    """Tokens first..last: worst chosen and best unchosen biased integer score; choices are first made a top-K."""
    experts, k = scores.shape[1], choices.shape[1]
    inside = np.zeros(experts, dtype=np.bool_)
    biased = np.empty(experts, dtype=np.int64)
    for i in range(first, last):
        for e in range(experts):
            biased[e] = np.int64(np.rint(scores[i, e] * factor)) + price[e]
        for q in range(k):
            inside[choices[i, q]] = True
        while True:
            low, high, slot, out = FAR, -FAR, 0, 0
            for q in range(k):
                if biased[choices[i, q]] < low:
                    low, slot = biased[choices[i, q]], q
            for e in range(experts):
                if biased[e] > high and not inside[e]:
                    high, out = biased[e], e
            if low >= high:
                break
            inside[choices[i, slot]] = False
            inside[out] = True
            choices[i, slot] = out
        worst_in[i] = low
        best_out[i] = high
        for q in range(k):
            inside[choices[i, q]] = False


@njit(cache=True, parallel=True)
def boundary(scores, factor, price, choices, worst_in, best_out):
    """`boundary_of` all tokens, in parallel."""
    tokens, blocks = scores.shape[0], 64
    for n in prange(blocks):
        first, last = tokens * n // blocks, tokens * (n + 1) // blocks
        boundary_of(scores, first, last, factor, price, choices, worst_in, best_out)


@njit(cache=True)
def candidates(scores, factor, price, choices, tokens, worst_in, best_out, reach):
    """For the given tokens, all experts that a price move of `reach` could bring in or out: (start, expert, cost,
    inside)."""
    experts = scores.shape[1]
    start = np.zeros(tokens.size + 1, dtype=np.int64)
    for filling in range(2):
        if filling == 0:
            expert, cost = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64)
            inside = np.empty(0, dtype=np.bool_)
        else:
            expert, cost = np.empty(start[-1], dtype=np.int32), np.empty(start[-1], dtype=np.int64)
            inside = np.empty(start[-1], dtype=np.bool_)
        chosen = np.zeros(experts, dtype=np.bool_)
        at = 0
        for n in range(tokens.size):
            i = tokens[n]
            for e in choices[i]:
                chosen[e] = True
            for e in range(experts):
                value = np.int64(np.rint(scores[i, e] * factor))
                near = value + price[e] <= best_out[i] + reach if chosen[e] else value + price[e] >= worst_in[i] - reach
                if near:
                    if filling == 1:
                        expert[at], cost[at], inside[at] = e, value, chosen[e]
                    at += 1
            for e in choices[i]:
                chosen[e] = False
            start[n + 1] = at
    return start, expert, cost, inside


@njit(cache=True)
def arcs(start, expert, cost, experts):
    """All ordered pairs of candidates of one token, grouped by (from, to) and sorted by cost: (first, a, b) of
    slots."""
    first = np.zeros(experts * experts + 1, dtype=np.int64)
    for n in range(start.size - 1):
        for a in range(start[n], start[n + 1]):
            for b in range(start[n], start[n + 1]):
                if a != b:
                    first[expert[a] * experts + expert[b] + 1] += 1
    for q in range(experts * experts):
        first[q + 1] += first[q]
    leave = np.empty(first[-1], dtype=np.int32)
    enter = np.empty(first[-1], dtype=np.int32)
    fill = first[:-1].copy()
    for n in range(start.size - 1):
        for a in range(start[n], start[n + 1]):
            for b in range(start[n], start[n + 1]):
                if a != b:
                    q = expert[a] * experts + expert[b]
                    leave[fill[q]], enter[fill[q]] = a, b
                    fill[q] += 1
    for q in range(experts * experts):
        lo, hi = first[q], first[q + 1]
        if hi - lo > 1:
            loss = cost[leave[lo:hi]] - cost[enter[lo:hi]]
            order = np.argsort(loss, kind="mergesort")
            leave[lo:hi] = leave[lo:hi][order]
            enter[lo:hi] = enter[lo:hi][order]
    return first, leave, enter


@njit(cache=True)
def _settle(q, first, leave, enter, inside, head, cost, loss):
    """head[q] = first arc of pair q at or after head[q] whose token is in the first and not in the second expert."""
    at = head[q]
    while at < first[q + 1] and (not inside[leave[at]] or inside[enter[at]]):
        at += 1
    head[q] = at
    loss[q] = cost[leave[at]] - cost[enter[at]] if at < first[q + 1] else FAR


@njit(cache=True)
def _distances(loss, price, excess, flow, lower, upper, limit, dist, parent):
    """Dijkstra over experts and the root (last node) from all nodes with excess; the nearest node that lacks, or -1."""
    nodes = price.size
    experts = nodes - 1
    done = np.zeros(nodes, dtype=np.bool_)
    for v in range(nodes):
        dist[v] = 0 if excess[v] > 0 else FAR
        parent[v] = -1
    while True:
        u, near = -1, limit + 1
        for v in range(nodes):
            if not done[v] and dist[v] < near:
                u, near = v, dist[v]
        if u < 0:
            return -1
        if excess[u] < 0:
            return u
        done[u] = True
        if u < experts:
            for v in range(experts):
                raw = loss[u * experts + v]
                if raw < FAR and not done[v]:
                    d = near + raw + price[u] - price[v]
                    if d < dist[v]:
                        dist[v], parent[v] = d, u
            if flow[u] < upper[u] and not done[experts]:
                d = near + price[u] - price[experts]
                if d < dist[experts]:
                    dist[experts], parent[experts] = d, u
        else:
            for v in range(experts):
                if flow[v] > lower[v] and not done[v]:
                    d = near + price[u] - price[v]
                    if d < dist[v]:
                        dist[v], parent[v] = d, u


@njit(cache=True)
def _renew(n, start, expert, cost, inside, first, leave, enter, head, loss, experts):
    """Token n has moved: drop its arcs that ended, take those that appeared where they are the cheapest."""
    for a in range(start[n], start[n + 1]):
        for b in range(start[n], start[n + 1]):
            if a != b:
                q = expert[a] * experts + expert[b]
                gained = cost[a] - cost[b]
                if inside[a] and not inside[b] and gained < loss[q]:
                    low, high = first[q], head[q]
                    while low < high:
                        middle = (low + high) // 2
                        if cost[leave[middle]] - cost[enter[middle]] < gained:
                            low = middle + 1
                        else:
                            high = middle
                    head[q] = low
                _settle(q, first, leave, enter, inside, head, cost, loss)


@njit(cache=True)
def augment(start, expert, cost, inside, first, leave, enter, price, excess, flow, lower, upper, reach):
    """Send excess along shortest paths until none is left or prices have moved by `reach`; returns the paths sent.

    Changes inside, price, excess and flow. Afterwards every arc among the candidates has a reduced cost >= 0, and so
    has every other arc, because prices moved by at most `reach` against each other.
    """
    nodes = price.size
    experts = nodes - 1
    owner = np.empty(expert.size, dtype=np.int64)
    for n in range(start.size - 1):
        owner[start[n] : start[n + 1]] = n
    head = first[:-1].copy()
    loss = np.empty(experts * experts, dtype=np.int64)
    for q in range(experts * experts):
        _settle(q, first, leave, enter, inside, head, cost, loss)
    old = price.copy()
    dist = np.empty(nodes, dtype=np.int64)
    parent = np.empty(nodes, dtype=np.int64)
    movers = np.empty(nodes, dtype=np.int64)
    sent = 0
    while (excess > 0).any():
        moved = price - old
        limit = reach - (moved.max() - moved.min())
        target = _distances(loss, price, excess, flow, lower, upper, limit, dist, parent)
        rise = dist[target] if target >= 0 else limit
        for v in range(nodes):
            price[v] += min(dist[v], rise)
        if target < 0:
            break
        count, v = 0, target
        while parent[v] >= 0:
            u = parent[v]
            if v == experts:
                flow[u] += 1
            elif u == experts:
                flow[v] -= 1
            else:
                a, b = leave[head[u * experts + v]], enter[head[u * experts + v]]
                inside[a], inside[b] = False, True
                movers[count] = owner[a]
                count += 1
            v = u
        excess[v] -= 1
        excess[target] += 1
        sent += 1
        for m in range(count):
            _renew(movers[m], start, expert, cost, inside, first, leave, enter, head, loss, experts)
    return sent


@njit(cache=True)
def write_back(tokens, start, expert, inside, choices):
    """Put the chosen candidates of the given tokens back into choices [T, K]."""
    for n in range(tokens.size):
        row = choices[tokens[n]]
        entering = start[n]
        for a in range(start[n], start[n + 1]):
            if inside[a]:
                continue
            for q in range(row.size):
                if (
                    row[q] == expert[a]
                ):  # this one left: the next candidate that is inside but not yet in the row enters
                    while True:
                        known = not inside[entering]
                        for r in range(row.size):
                            known = known or row[r] == expert[entering]
                        if not known:
                            break
                        entering += 1
                    row[q] = expert[entering]
