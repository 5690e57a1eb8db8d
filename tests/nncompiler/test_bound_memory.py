"""Bound calls of one function run one at a time, so their temporaries lie in the same memory."""

from __future__ import annotations

import threading
from typing import Any

import networkx as nx
import numpy as np

import nncompiler as nnc


def model() -> nnc.Model:
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 5))
    g.add_node("hidden", op="dense", units=600, activation="tanh")
    g.add_node("y", op="dense", units=3)
    nx.add_path(g, ["x", "hidden", "y"])
    return nnc.compile(g)


def rows(number: int, seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=(number, 5)).astype(np.float32)


def test_bound_calls_in_turns_and_at_once_give_what_plain_calls_give() -> None:
    m = model()
    data = [rows(40, seed) for seed in range(6)]
    bound = [m.bind(x) for x in data]
    wanted = [m(x) for x in data]
    wrong: list[int] = []

    def work(first: int) -> None:
        for k in range(first, 600, 2):
            n = k % len(data)
            if not np.array_equal(bound[n](), wanted[n]):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_one_arena_serves_the_bindings_of_a_batch_size() -> None:
    m = model()
    small, *same = [m.bind(rows(number, 0)) for number in (7, 40, 40, 40)]
    arenas = {id(b._bound._frame.arena) for b in same}
    assert len(arenas) == 1
    assert id(small._bound._frame.arena) not in arenas
