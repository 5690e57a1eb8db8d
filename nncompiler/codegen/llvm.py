"""Takes an LLVM module as text, gives object code and assembly; asks LLVM about this machine.

The first of the two files that touch llvmlite (runtime/loader.py is the second).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from nncompiler.codegen.target import Target, describe

# Level 1 gives the code of level 3 here, since the IR is explicit already; passes before code
# generation, and loop strength reduction inside it, cost more time than they gain.
LEVEL = 1
OPTIONS = "-disable-lsr"


def version() -> str:
    """The llvmlite that is installed."""
    import llvmlite

    return str(llvmlite.__version__)


@cache
def host() -> Target:
    """The machine that this process runs on."""
    import llvmlite.binding as llvm

    present = {name for name, there in llvm.get_host_cpu_features().items() if there}
    return describe(str(llvm.get_process_triple()), str(llvm.get_host_cpu_name()), present)


def assemble(module: str, target: Target) -> bytes:
    """Object code of an LLVM module."""
    return bytes(_machine(target).emit_object(_parse(module)))


def assembly(module: str, target: Target) -> str:
    """The same code as text."""
    return str(_machine(target).emit_assembly(_parse(module)))


@cache
def _machine(target: Target) -> Any:
    """LLVM's code generator for a target."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.set_option("nncompiler", OPTIONS)
    found = llvm.Target.from_triple(target.triple)
    return found.create_target_machine(
        cpu=target.cpu, features=target.features, opt=LEVEL, reloc="pic"
    )


def _parse(module: str) -> Any:
    import llvmlite.binding as llvm

    return llvm.parse_assembly(module)
