"""Threads change the time of a call and nothing else: not a bit, not an error, not what is idle."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import nncompiler as nnc
from ir import ops
from ir.graph import Graph, Node
from ir.interpret_loops import run_function
from ir.types import DTYPES, as_dim
from ir.verify_loops import verify_function
from nncompiler.codegen.target import PRESETS
from nncompiler.compilation import compile_graph
from nncompiler.options import Options
from nncompiler.pipeline import lower_graph
from nncompiler.schedule import split
from runtime import pool
from runtime import team as team_code
from runtime.session import Session

COUNTS = (1, 2, 3, 8)
NATIVE = pytest.mark.skipif(not team_code.possible(), reason="no threads on this system")


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is dealt out, in the smallest chunks, and sleepers are called at once."""
    monkeypatch.setattr(split, "PAYS", 1)
    monkeypatch.setattr(split, "CHUNK", 1)
    monkeypatch.setattr(split, "LONG_CHUNK", 50)
    monkeypatch.setattr(team_code, "WAKE_AFTER", 0)


def value(name: str, *shape: int | str) -> Node:
    return ops.input(name, "f32", tuple(as_dim(d) for d in shape))


def data(graph: Graph, batch: int = 1) -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    shapes = {
        str(n.attrs["id"]): [d if isinstance(d, int) else batch * d.coefficient for d in n.shape]
        for n in graph.inputs
    }
    return {k: random.standard_normal(s).astype(np.float32) for k, s in shapes.items()}


def graph(build: Callable[..., Node], *inputs: Node) -> Graph:
    return Graph("g", inputs, {"y": build(*inputs)})


def edges(sources: int, nodes: int, count: int) -> ops.Edges:
    """From lower to higher slots, one at least for every node."""
    random = np.random.default_rng(count)
    targets = np.append(np.arange(nodes), random.integers(0, nodes, count - nodes))
    slots = (random.random(count) * (sources + targets)).astype(np.int64)
    return ops.Edges(slots, targets, np.arange(count))


def neurons(sources: int, nodes: int) -> Callable[..., Node]:
    count = 4 * nodes
    half = nodes // 2
    formulas = (("add z x0; tanh %0", half), ("max: add z x0", nodes - half))
    found = edges(sources, nodes, count)
    kept = range(sources + half, sources + nodes)
    return lambda x, w, b: ops.sweep(w, found, formulas, x=x, extras=(b,), kept=kept)


def products(columns: int, count: int) -> Callable[..., Node]:
    random = np.random.default_rng(1)
    left, right = (random.integers(0, columns, count) for _ in range(2))
    return lambda a, b: ops.pair_sums(a, b, left, right)


W = value("w", 70, 100)
GRAPHS = {
    "product": graph(ops.matmul, value("x", 90, 70), W),
    "packed": graph(ops.matmul, value("x", 300, 512), value("w", 512, 520)),
    "transposed": graph(lambda x, w: x @ w.T, value("x", 64, 100), W),
    "rows": graph(lambda x, w: ops.relu(x @ w), value("x", "batch", 70), W),
    "sum over the batch": graph(
        lambda x, g: ops.einsum("bi,bj->ij", x, g), value("x", "batch", 70), value("g", "batch", 33)
    ),
    "batched": graph(ops.matmul, value("x", 6, 40, 30), value("y", 6, 30, 20)),
    "softmax": graph(ops.softmax, value("x", "batch", 300)),
    "elementwise": graph(lambda x: ops.exp(x) * x + 1, value("x", 10_001)),
    "columns": graph(lambda x: x.sum(axis=0), value("x", "batch", 129)),
    "all of a long vector": graph(lambda x: (x * x).sum(), value("x", 70_001)),
    "all rows": graph(lambda x: ops.max(ops.abs(x)), value("x", "batch", 2000)),
    "all with a bias": graph(
        lambda x, b: ops.tanh(x + b).mean(), value("x", "batch", 1500), value("b", 1500)
    ),
    "neurons": graph(
        neurons(5, 40), value("x", "batch", 5), value("w", 160), value("b", "batch", 40)
    ),
    "many neurons": graph(
        neurons(9, 600), value("x", "batch", 9), value("w", 2400), value("b", "batch", 600)
    ),
    "pairs": graph(products(40, 77), value("a", "batch", 40), value("b", "batch", 40)),
    "pairs of many columns": graph(
        products(1000, 90), value("a", "batch", 1000), value("b", "batch", 1000)
    ),
    "whole": graph(lambda x: ops.tanh(x).sum(), value("x", "batch", 50)),
}


@NATIVE
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", GRAPHS)
def test_every_number_of_threads_gives_the_same_bits(name: str) -> None:
    artifact = compile_graph(GRAPHS[name], options=Options(cache=False))
    for batch in (1, 2, 7, 64, 201):
        inputs = data(GRAPHS[name], batch)
        alone = Session(artifact, threads=1)(inputs)["y"]
        assert np.isfinite(alone).all()
        for count in COUNTS[1:]:
            bound = Session(artifact, threads=count).bind(inputs)
            for _ in range(3):
                assert bound.run(3)["y"].tobytes() == alone.tobytes(), (name, batch, count)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", GRAPHS)
def test_chunks_may_run_in_any_order(name: str) -> None:
    """The interpreter shuffles them; the verifier knows what a split must be."""
    lowered = lower_graph(GRAPHS[name])
    for scheduled in lowered.scheduled:
        verify_function(scheduled.function)
    if len(lowered.scheduled) > 1:
        return
    (function,) = (s.function for s in lowered.scheduled)
    inputs = data(GRAPHS[name], 9)
    expected = Session(compile_graph(GRAPHS[name], options=Options(cache=False)))(inputs)["y"]
    buffers = {k: a.ravel().copy() for k, a in inputs.items()}
    for spec in lowered.plan.buffers:
        if spec.role == "constant":
            dtype = DTYPES[spec.dtype].numpy
            buffers[spec.name] = np.frombuffer(bytes.fromhex(spec.data), dtype)
    (written,) = (b.name for b in function.buffers if b.written)
    for seed in range(3):
        buffers[written] = np.full(expected.size, np.nan, np.float32)
        run_function(function, buffers, {"batch": 9}, seed=seed)
        np.testing.assert_allclose(buffers[written], expected.ravel(), rtol=1e-4, atol=1e-4)


def network() -> nx.DiGraph:
    g = nx.DiGraph()
    g.add_node("x", op="input", shape=("batch", 64))
    g.add_node("hidden", op="dense", units=96, activation="tanh")
    g.add_node("noise", op="dropout", rate=0.2)
    g.add_node("scores", op="dense", units=10)
    nx.add_path(g, ["x", "hidden", "noise", "scores"])
    return g


def digits(rows: int = 150) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    return random.random((rows, 64), np.float32), random.integers(0, 10, rows)


def compiled(threads: int | None) -> nnc.Model:
    return nnc.compile(
        network(),
        loss="cross_entropy",
        optimizer=nnc.Adam(0.01),
        regularizer=nnc.L2(1e-4),
        options=nnc.Options(threads=threads, cache=False),
    )


@NATIVE
@pytest.mark.usefixtures("eager")
def test_training_gives_the_same_bits() -> None:
    x, t = digits()
    found = []
    for count in COUNTS:
        model = compiled(count)
        losses = [model.step(x[:50], t[:50]) for _ in range(3)]
        losses += model.fit(x, t, epochs=2, batch_size=32, verbose=0).history["loss"]
        weights = {k: np.array(v).tobytes() for k, v in model.parameters.items()}
        found.append((losses, weights, model(x).tobytes()))
    assert all(f == found[0] for f in found[1:])


@NATIVE
def test_a_fault_leaves_the_parameters_alone() -> None:
    x, t = digits(2000)
    model = compiled(2)
    model.step(x, t)
    before = {k: np.array(v) for k, v in model.parameters.items()}
    t[1999] = 10
    with pytest.raises(ValueError, match="1999"):
        model.step(x, t)
    assert all(np.array_equal(v, before[k]) for k, v in model.parameters.items())
    t[1999] = 9
    model.step(x, t)


BIG = graph(lambda x, w: ops.tanh(x @ w), value("x", "batch", 256), value("w", 256, 256))


@NATIVE
def test_several_python_threads_share_a_team() -> None:
    session = Session(compile_graph(BIG, options=Options(cache=False)), threads=2)
    other = Session(compile_graph(GRAPHS["softmax"], options=Options(cache=False)), threads=2)
    jobs = [(s, data(g, 60)) for s, g in ((session, BIG), (other, GRAPHS["softmax"])) for _ in "12"]
    expected = [s(inputs)["y"].tobytes() for s, inputs in jobs]
    wrong = []

    def work(number: int) -> None:
        run, inputs = jobs[number]
        for _ in range(200):
            if run(inputs)["y"].tobytes() != expected[number]:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@NATIVE
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_workers_of_its_own() -> None:
    session = Session(compile_graph(BIG, options=Options(cache=False)), threads=2)
    inputs = data(BIG, 100)
    bound = session.bind(inputs)
    expected = bound.run(50)["y"].tobytes()
    child = os.fork()
    if child == 0:
        started = time.monotonic()
        while _threads() < 2 and time.monotonic() - started < 20:
            bound.run(50)
        same = bound.run(50)["y"].tobytes() == expected
        os._exit(0 if same and _threads() == 2 else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert bound.run(50)["y"].tobytes() == expected


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


@NATIVE
def test_an_idle_process_uses_no_time() -> None:
    bound = Session(compile_graph(BIG, options=Options(cache=False)), threads=3).bind(data(BIG, 99))
    bound.run(100)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.02


@NATIVE
def test_a_caller_whose_workers_never_come_does_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    artifact = compile_graph(BIG, options=Options(cache=False))
    inputs = data(BIG, 64)
    nothing = ctypes.CDLL(None).pthread_self  # returns at once, whatever its argument
    session = Session(artifact, threads=1)
    expected = session(inputs)["y"].tobytes()
    monkeypatch.setattr(pool, "_teams", {})
    library, addresses = team_code.functions()
    addresses["worker"] = ctypes.cast(nothing, ctypes.c_void_p).value or 0
    monkeypatch.setattr(pool, "functions", lambda: (library, addresses))
    session.team = pool.team(4, shared=True)
    for _ in range(100):
        assert session(inputs)["y"].tobytes() == expected


@NATIVE
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("flush", [True, False])
def test_all_threads_treat_denormals_alike(flush: bool) -> None:
    g = graph(lambda x: ops.relu(x * 1e-30) * 1e-10, value("x", 5000))
    artifact = compile_graph(g, options=Options(cache=False, flush_denormals=flush))
    x = np.ones(5000, np.float32)
    bound = Session(artifact, threads=3).bind({"x": x})
    for _ in range(20):
        y = bound.run(20)["y"]
        assert (y == 0).all() if flush else (y > 0).all()
    assert np.float32(1e-30) * np.float32(1e-10) > 0


def test_the_number_of_threads_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNC_NUM_THREADS", "3")
    assert pool.default_threads() == 3
    monkeypatch.setenv("NNC_NUM_THREADS", "none")
    with pytest.raises(ValueError, match="NNC_NUM_THREADS"):
        pool.default_threads()
    monkeypatch.delenv("NNC_NUM_THREADS")
    if hasattr(os, "sched_getaffinity"):
        assert pool.default_threads() == min(len(os.sched_getaffinity(0)), pool._quota())
    with pytest.raises(ValueError, match="threads must be at least 1"):
        pool.team(0, shared=True)


@pytest.mark.parametrize(
    ("text", "cores"), [("150000 100000", 2), ("100000 100000", 1), ("max 100000", 1 << 20)]
)
def test_a_container_has_as_many_cores_as_it_may_use(tmp_path: Path, text: str, cores: int) -> None:
    assert pool._quota(tmp_path) == 1 << 20
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert pool._quota(tmp_path) == cores


@NATIVE
def test_options_and_environment_reach_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = compile_graph(BIG, options=Options(cache=False))
    monkeypatch.setenv("NNC_NUM_THREADS", "1")
    assert Session(artifact).team is None
    assert Session(artifact, threads=2).team is not None
    monkeypatch.setenv("NNC_NUM_THREADS", "2")
    assert Session(artifact).team == Session(artifact, threads=2).team
    assert Session(artifact, threads=1).team is None


def test_small_and_foreign_programs_have_no_team() -> None:
    small = graph(lambda x: x + 1, value("x", 8))
    assert not lower_graph(small).plan.shared
    assert Session(compile_graph(small, options=Options(cache=False)), threads=2).team is None
    lowered = lower_graph(BIG, target=PRESETS["neon"])
    assert lowered.plan.shared
    assert "%run0(" in lowered.module


SCRIPT = """
import numpy as np, sys, threading
import nncompiler as nnc
f = nnc.jit(lambda a, b: a @ b, options=nnc.Options(threads=3))
a = np.ones((256, 256), np.float32)
for _ in range(int(sys.argv[1])):
    f(a, a)
"""


@NATIVE
@pytest.mark.parametrize("calls", [1, 400])
def test_the_interpreter_ends_with_workers_awake_or_asleep(calls: int) -> None:
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(calls)], env=environment, timeout=60, check=False
        )
        assert done.returncode == 0
