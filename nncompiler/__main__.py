"""Takes a command line, gives a demonstration, a stage of a graph, or a comparison with NumPy.

    nnc demo                                train on real handwritten digits
    nnc inspect network.json loops          one stage of a graph in node-link JSON
    nnc compare network.json                compiled code against the NumPy reference

Exit codes: 0 done, 1 the network is wrong or results differ, 2 wrong use of the command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from nncompiler import __version__
from nncompiler.commands import CommandError, compare, demo, inspect
from nncompiler.stages import STAGES


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnc",
        description="Compiles neural networks given as graphs to native code.",
        epilog="exit codes: 0 done, 1 the network is wrong or results differ, 2 wrong use",
    )
    parser.add_argument("--version", action="version", version=f"nncompiler {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_inspect(commands)
    _add_compare(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "train 64-128-64-10 on scikit-learn's handwritten digits; show loss, accuracy, speed"
    command = commands.add_parser("demo", help=about, description=about)
    command.add_argument("--epochs", type=_positive, default=30, help="default: 30")
    command.add_argument("--seed", type=int, default=0, help="of weights and shuffles (0)")
    command.add_argument("--threads", type=_positive, default=None, help="default: all cores")
    command.add_argument(
        "--stage",
        choices=(*STAGES, "none", "all"),
        help="print this stage whole (default: excerpts)",
    )
    command.set_defaults(run=demo)


def _add_inspect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "print a stage of a graph stored as node-link JSON or in a .nnc file"
    command = commands.add_parser("inspect", help=about, description=about)
    _add_graph(command)
    command.add_argument("stage", nargs="?", choices=STAGES, help="default: graph")
    command.add_argument(
        "--stage", dest="chosen", choices=STAGES, help="the same as an option", metavar="STAGE"
    )
    command.add_argument("--summary", action="store_true", help="the table of layers instead")
    command.add_argument("--output", metavar="FOLDER", help="write all stages and DOT pictures")
    command.set_defaults(run=inspect)


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "largest errors of compiled code against NumPy, on random data"
    command = commands.add_parser("compare", help=about, description=about)
    _add_graph(command)
    command.add_argument("--batch", type=_positive, default=32, help="rows of data (32)")
    command.add_argument("--tolerance", type=float, default=None, help="default: by dtype")
    command.set_defaults(run=compare)


def _add_graph(command: argparse.ArgumentParser) -> None:
    command.add_argument("graph", help="a .json file in networkx node-link form, or a .nnc file")
    command.add_argument("--loss", help="such as mse or cross_entropy")
    command.add_argument("--optimizer", help="sgd, adam, adamw, rmsprop or adagrad")
    command.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    command.add_argument("--seed", type=int, default=0, help="of the weights (0)")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command, gives the exit code; mistakes are one line on stderr."""
    arguments = build_parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except CommandError as error:
        print(f"nnc: error: {error}", file=sys.stderr)
        return error.code
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("nnc: interrupted", file=sys.stderr)
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
