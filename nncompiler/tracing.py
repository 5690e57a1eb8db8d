"""Takes a Python function on symbolic values, gives a compiled function on arrays.

f(x, w)  on arrays           ->  f(%x, %w) on input nodes  ->  ir.Graph  ->  native code, cached
f(%x, %w) on symbolic values ->  f is simply called: the graph grows
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any

import numpy as np

from ir import ops
from ir.graph import Graph, Node
from ir.types import DType, dtype_of, f64
from nncompiler.compilation import compile_graph
from nncompiler.options import Options
from nncompiler.tree import LEAF, Tree, flatten, unflatten
from runtime.direct import direct
from runtime.route import Route
from runtime.session import Session

Array = np.ndarray[Any, Any]


def is_array(value: object) -> bool:
    """Whether a leaf becomes an input: a Python float does, an int does not."""
    return isinstance(value, (np.ndarray, np.generic, float))


def as_node(value: object, dtype: DType | None = None) -> Node:
    """A Node as it is, anything else as a constant."""
    if isinstance(value, Node):
        return value
    if dtype is None:
        dtype = dtype_of(np.asarray(value))
    return ops.constant(np.asarray(value, dtype.numpy))


def _float_dtype(leaves: Sequence[object]) -> DType:
    """The dtype of Python floats among the leaves: that of the widest floating array, else f64."""
    kinds = [leaf.dtype for leaf in leaves if isinstance(leaf, (np.ndarray, np.generic))]
    floats = [d for d in kinds if d.kind == "f"]
    return dtype_of(max(floats, key=lambda d: d.itemsize)) if floats else f64


def _as_input(leaf: Any, floats: DType) -> Array:
    if isinstance(leaf, float) and not isinstance(leaf, np.generic):
        return np.asarray(leaf, floats.numpy)
    array = np.asarray(leaf)
    return np.require(array, dtype_of(array).numpy, "C")


@dataclass(frozen=True)
class Traced:
    """A function traced for certain shapes: its graph and how to assemble what it returns.

    `results` holds per returned leaf the output's name, or the value itself where it is no Node.
    """

    graph: Graph
    tree: Tree
    results: tuple[tuple[str | None, Any], ...]

    @property
    def single(self) -> str | None:
        """The output that is returned as it is, if one is."""
        return self.results[0][0] if self.tree is LEAF else None

    def assemble(self, outputs: dict[str, Array]) -> Any:
        leaves = [value if name is None else outputs[name] for name, value in self.results]
        return unflatten(self.tree, leaves)


class Jitted:
    """A function that runs as native code on arrays, and as itself on symbolic values.

    Arguments are nested tuples, lists and dicts of arrays. Arrays and Python floats become inputs;
    ints, bools, strings and everything else are static: another value is another compilation.
    Arrays like those of the first call go to native code at once; so `__call__` is a slot.
    """

    __slots__ = ("__call__", "__dict__", "__weakref__")
    __call__: Callable[..., Any]

    def __init__(self, function: Callable[..., Any], options: Options | None = None) -> None:
        if not callable(function):
            raise TypeError(f"expected a function, got {type(function).__name__}")
        update_wrapper(self, function)
        self.function = function
        self.options = options or Options()
        self._compiled: dict[Any, tuple[Traced, Session | None]] = {}
        self._plain: dict[Any, Callable[..., Any]] = {}  # native callables, for arrays alone
        self._first: Route | None = None
        self.__call__ = direct(self._general, lambda: self._first)

    def __repr__(self) -> str:
        return f"<compiled function {self.name}>"

    @property
    def name(self) -> str:
        name = str(getattr(self.function, "__name__", "function"))
        return name if name.isidentifier() else "function"

    @property
    def compilations(self) -> int:
        """For how many combinations of shapes, dtypes and static values it was compiled."""
        return len(self._compiled)

    def _general(self, *args: Any, **kwargs: Any) -> Any:
        key = None if kwargs else _plain_key(args)
        if key is not None and key in self._plain:
            return self._plain[key](*args)
        leaves, tree = flatten((args, kwargs))
        if any(isinstance(leaf, Node) for leaf in leaves):
            return self.function(*args, **kwargs)
        traced, session, inputs = self._prepare(leaves, tree)
        if session and key is not None:
            self._add(key, traced, session)
        return traced.assemble(session(inputs) if session else {})

    def _add(self, key: Any, traced: Traced, session: Session) -> None:
        """The native callable of arguments that are all arrays; the first one needs no look-up."""
        names = tuple(port.name for port in session.wanted)

        def general(*args: Any) -> Any:
            return traced.assemble(session({name: args[int(name)] for name in names}))

        route = Route(session, names, traced.single, shape=traced.assemble)
        self._first = self._first or route
        self._plain[key] = general if route is self._first else direct(general, lambda: route)

    def graph(self, *args: Any, **kwargs: Any) -> Graph:
        """The graph that these arguments are traced to."""
        return self._prepare(*flatten((args, kwargs)))[0].graph

    def _prepare(
        self, leaves: list[Any], tree: Tree
    ) -> tuple[Traced, Session | None, dict[str, Array]]:
        floats = _float_dtype(leaves)
        inputs = {str(i): _as_input(v, floats) for i, v in enumerate(leaves) if is_array(v)}
        key = (tree, tuple(_leaf_key(v, inputs.get(str(i))) for i, v in enumerate(leaves)))
        if key not in self._compiled:
            traced = self._trace(leaves, tree, inputs)
            session = None
            if traced.graph.outputs:
                artifact = compile_graph(
                    traced.graph, options=self.options, label=f"jit_{self.name}"
                )
                session = Session(artifact, {}, self.options.threads)
            self._compiled[key] = (traced, session)
        traced, session = self._compiled[key]
        names = {node.attrs["id"] for node in traced.graph.inputs}
        return traced, session, {k: v for k, v in inputs.items() if k in names}

    def _trace(self, leaves: list[Any], tree: Tree, inputs: dict[str, Array]) -> Traced:
        nodes = {k: ops.input(k, dtype_of(a), a.shape) for k, a in inputs.items()}
        values = [nodes.get(str(i), leaf) for i, leaf in enumerate(leaves)]
        args, kwargs = unflatten(tree, values)
        results, result_tree = flatten(self.function(*args, **kwargs))
        outputs: dict[str, Node] = {}
        parts: list[tuple[str | None, Any]] = []
        for value in results:
            if isinstance(value, Node):
                name = f"result{len(outputs)}"
                outputs[name] = value
                parts.append((name, None))
            else:
                parts.append((None, np.asarray(value)))
        graph = Graph(self.name, tuple(nodes.values()), outputs, self._names(args, kwargs))
        return Traced(graph, result_tree, tuple(parts))

    def _names(self, args: Any, kwargs: Any) -> dict[Node, str]:
        """Argument names of the Python function for the inputs."""
        try:
            bound = inspect.signature(self.function).bind(*args, **kwargs).arguments
        except (TypeError, ValueError):
            return {}
        names: dict[Node, str] = {}
        for name, value in bound.items():
            found = [leaf for leaf in flatten(value)[0] if isinstance(leaf, Node)]
            for i, node in enumerate(found):
                names[node] = name if len(found) == 1 else f"{name}.{i}"
        return names


def _plain_key(args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Types, dtypes and shapes of arguments that are all arrays; None where one is not."""
    key: list[Any] = []
    for value in args:
        if type(value) is not np.ndarray:
            return None
        key += (value.dtype, value.shape)
    return tuple(key)


def _leaf_key(leaf: Any, array: Array | None) -> Any:
    if array is not None:
        return (array.dtype.str, array.shape)
    try:
        hash(leaf)
    except TypeError as error:
        raise TypeError(
            f"an argument of type {type(leaf).__name__} is neither an array, nor a nesting of "
            "tuples, lists and dicts, nor hashable"
        ) from error
    return (type(leaf), leaf)
