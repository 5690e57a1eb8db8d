"""Takes a model, gives what people read of it: summary, profile, the stages, a folder of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ir.convert import to_dot
from ir.op import REGISTRY, Lowering
from ir.text import print_graph
from nncompiler.program import Program
from nncompiler.stages import STAGES
from nncompiler.table import Table, bytes_text
from runtime.buffers import Arena

if TYPE_CHECKING:
    from nncompiler.model import Model

BATCH = 32  # the batch that the summary's memory is given for
SUFFIXES = {"llvm": "ll", "assembly": "s"}


def summarize(model: Model) -> Table:
    """Layers with their shapes and parameters; then kernels and memory of the main program."""
    network = model.blueprint.network
    sizes = {n: model.state[n].size for n in network.parameters}
    layers = model.blueprint.objective.inference.layers
    rows = tuple(
        (layer.name, layer.op, str(layer.type), f"{sum(sizes[p] for p in layer.parameters):,}")
        for layer in layers
    )
    total = sum(sizes.values())
    trained = sum(sizes[n] for n in model.blueprint.objective.trainable)
    notes = [
        "",
        f"{total:,} parameters, {trained:,} of them trainable; {model.settings.dtype}",
        *_program_notes(model.main, model.program(model.main)),
    ]
    return Table(("layer", "op", "output", "parameters"), rows, tuple(notes))


def _program_notes(name: str, program: Program) -> list[str]:
    plan = program.artifact.plan
    arena = Arena(plan)
    arena.fit([BATCH] * len(plan.symbols))
    where = f" at batch {BATCH}" if plan.symbols else ""
    what = {"step": "training step", "backward": "backward function"}.get(name, f"{name} function")
    distinct = len({k.function for k in plan.kernels})
    notes = [
        f"{what}: {len(plan.kernels)} kernels ({distinct} different), "
        f"{bytes_text(arena.size)} of temporary memory (arena){where}",
        "a kernel is one loop nest; the values on its line stay in registers between each other:",
    ]
    width = max((len(k.label) for k in plan.kernels), default=0)
    notes.extend(f"  {k.label:{width}s}  {_explain(k.nodes)}" for k in plan.kernels)
    return notes


def _explain(nodes: Sequence[str]) -> str:
    """What runs in one kernel: the form of its loops, and the values that it computes."""
    if not nodes:
        return "copy"
    classes = {REGISTRY[node.split(" = ")[-1]].lowering for node in nodes}
    if Lowering.SPARSE in classes:
        form = "sums along edges"
    elif Lowering.CONTRACT in classes:
        form = "contraction" if len(nodes) == 1 else "contraction and what follows it"
    elif Lowering.SCATTER in classes:
        form = "rows added at an index"
    elif Lowering.REDUCE in classes:
        form = "reduction" if len(nodes) == 1 else "reductions over the same rows, and maps"
    else:
        form = "maps"
    shown = list(nodes[:8])
    more = f" and {len(nodes) - len(shown)} more" if len(nodes) > len(shown) else ""
    return f"{form}: {', '.join(shown)}{more}"


# --------------------------------------------------------------------------- stages


def read_stage(model: Model, name: str) -> str:
    """The text of a stage of the main program.

    "graph" is the network as it was given; "gradient" that with derivatives and update.
    """
    program = model.program(model.main)
    if name == "graph":
        return print_graph(model.blueprint.graph("forward", model.blueprint.kinds, False))
    if name == "gradient":
        return print_graph(program.graph)
    return program.stage(name)


def dump(model: Model, folder: Path) -> list[Path]:
    """Writes the stages and DOT pictures; the folder is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, name in enumerate(STAGES):
        path = folder / f"{number}_{name}.{SUFFIXES.get(name, 'txt')}"
        path.write_text(model.stages[name], encoding="utf-8")
        written.append(path)
    graphs = {"graph": model.blueprint.graph("forward", model.blueprint.kinds, False)}
    graphs["gradient"] = model.program(model.main).graph
    for name, graph in graphs.items():
        path = folder / f"{name}.dot"
        path.write_text(to_dot(graph), encoding="utf-8")
        written.append(path)
    return written
