"""Takes the tables of many graphs, gives the session that runs them by one native evaluator.

The evaluator is compiled once for a dtype and a set of formulas, and kept in the user's cache like
every program; a population brings its tables (programs.py) and, in the plan, their sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from ir.types import DType, dtype_of
from nncompiler.codegen import llvm
from nncompiler.codegen.target import Target
from nncompiler.compilation import cached, digest_of
from nncompiler.frontend.genomes import Array
from nncompiler.options import Options
from nncompiler.programs import NUMBERS, TABLES, Programs
from runtime.artifact import Artifact, BufferSpec, KernelSpec, Plan, PlanDim
from runtime.loader import Program, load
from runtime.session import Session

X, Y, PLACES, SPILL = "x", "y", "places", "spill"
ENTRY = "population"


def open_evaluator(
    programs: Programs, formulas: tuple[str, ...], options: Options, *, apart: bool
) -> Session:
    """Runs the graphs of the tables; `formulas` are the texts of formulas by their numbers.

    Its inputs are `x`, with the rows of a column side by side: (inputs * batch) values, for every
    graph its own (`apart`) or one for all; and `places`, a number for each graph that times the
    batch is its first value in x. Its output `y` has (batch, outputs) of graph after graph.

    Native code reads the tables where they are: nobody else may write into any but the biases and
    weights.
    """
    number = dtype_of(programs.biases)
    flush, cache = options.flush_denormals, options.cache
    artifact, _ = _evaluator(number, formulas, llvm.host(), flush=flush, cache=cache)
    kept = {name: getattr(programs, name) for name in (*TABLES, *NUMBERS)}
    plan = _plan(number, _sizes(programs, kept, apart))
    return Session(replace(artifact, plan=plan), kept, options.threads)


@lru_cache(maxsize=32)
def _evaluator(
    dtype: DType, formulas: tuple[str, ...], target: Target, *, flush: bool, cache: bool
) -> tuple[Artifact, Program]:
    """The code and, so that it stays linked from one population to the next, its program."""

    def build() -> Artifact:
        from nncompiler.codegen.evaluator import evaluator_text  # a look-up does without it

        plan = _plan(dtype, {})
        return Artifact(plan, llvm.assemble(evaluator_text(plan, formulas, target, flush), target))

    key = digest_of(ENTRY, dtype.name, *formulas, str(flush))
    artifact = cached(key, build) if cache else build()
    return artifact, load(artifact)


def _sizes(
    programs: Programs, tables: Mapping[str, Array], apart: bool
) -> dict[str, list[PlanDim]]:
    graphs, width = len(programs.genomes), programs.width
    sizes: dict[str, list[PlanDim]] = {name: list(t.shape) for name, t in tables.items()}
    sizes[X] = [[width * (graphs if apart else 1), "batch"]]
    sizes[PLACES] = [[1, "genomes"]]
    sizes[SPILL] = [programs.spill]
    sizes[Y] = [[len(programs.outputs), "batch"]]
    return sizes


def _plan(dtype: DType, sizes: Mapping[str, list[PlanDim]]) -> Plan:
    """What native code gets, in the order of its arguments."""

    def buffer(name: str, kind: str, role: str = "input") -> BufferSpec:
        return BufferSpec(name, kind, sizes.get(name, []), role)

    buffers = [buffer(X, dtype.name), *(buffer(name, "i32") for name in (PLACES, *TABLES))]
    buffers += [buffer(name, dtype.name) for name in NUMBERS]
    buffers += [buffer(SPILL, dtype.name, "temporary"), buffer(Y, dtype.name, "output")]
    ends = [*sizes.get(X, ()), *sizes.get(Y, ())]
    moved = sum(dim[0] * dtype.bytes for dim in ends if isinstance(dim, list))
    sums = sizes.get("weights", [0])[0]
    flops, moves = [0, {"batch": 2 * sums}], [0, {"batch": moved}]
    return Plan(
        name=ENTRY,
        symbols=["batch", "genomes"],
        buffers=buffers,
        kernels=[KernelSpec(ENTRY, ENTRY, flops, moves, [])],
        outputs={Y: len(buffers) - 1},
        updates={},
        checks=[],
        feeds=[],
        scalars=[],
        entry=ENTRY,
        target="",
    )
