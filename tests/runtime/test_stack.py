"""A program that keeps much on the stack is refused where threads have little of it."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading

import pytest

from runtime.stack import check_stack

CODE = """
import networkx as nx, numpy as np, nncompiler as nnc
g = nx.DiGraph()
g.add_node("x", op="input", shape=("batch", 512, 8, 8))
g.add_node("y", op="conv", filters=512, kernel_size=3, padding="same")
g.add_edge("x", "y")
for winograd in (2, 0):
    try:
        model = nnc.compile(g, options=nnc.Options(cache=False, winograd=winograd))
        print(model(np.ones((2, 512, 8, 8), "f4")).shape)
    except ValueError as e:
        print(e)
"""


def test_a_small_stack_is_an_error_and_no_crash() -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, 1 << 20))

    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, preexec_fn=limit, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "on the stack" in first and "Options(winograd=0)" in first
    assert second == "(2, 512, 8, 8)"


def test_threads_with_small_stacks_are_named() -> None:
    before = threading.stack_size(1 << 19)
    try:
        check_stack(1 << 17, "step")
        with pytest.raises(ValueError, match="'step' keeps 1024 KiB .* threads have 512 KiB"):
            check_stack(1 << 20, "step")
    finally:
        threading.stack_size(before)
