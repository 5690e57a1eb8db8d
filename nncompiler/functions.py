"""Takes Python functions on symbolic values, gives compiled functions and their derivatives.

    nnc.jit(f)   nnc.grad(f)   nnc.value_and_grad(f)   nnc.hessian(f)
    nnc.jvp(f, primals, tangents)   nnc.vjp(f, *primals)

All of them take arrays (and run native code) or symbolic values (and build more graph), so they
nest: `nnc.grad(nnc.grad(f))`. Names, arguments and results are those of JAX.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ir import ops
from ir.graph import Graph, Node, substitute
from nncompiler.autodiff import differentiate
from nncompiler.options import Options
from nncompiler.tracing import Jitted, as_node
from nncompiler.tree import Tree, flatten, map_leaves, unflatten

Argnums = int | Sequence[int]
_fresh = itertools.count()


def jit(function: Callable[..., Any], *, options: Options | None = None) -> Jitted:
    """The function as native code, traced on the first call for each shapes and dtypes.

    Arrays and Python floats are inputs; ints, bools and strings are static.
    """
    return Jitted(function, options)


def value_and_grad(
    function: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False
) -> Jitted:
    """x -> (f(x), df/dx) of a scalar function; with has_aux f returns (value, more)."""

    def value_and_gradient(*args: Any, **kwargs: Any) -> Any:
        variables = _Variables(args, argnums)
        result = function(*variables.args, **kwargs)
        value, aux = result if has_aux else (result, None)
        gradients = differentiate(_scalar(value), variables.nodes)
        aux_leaves, aux_tree = flatten(aux)
        nodes = variables.resolve([as_node(v) for v in (value, *gradients, *aux_leaves)])
        count = 1 + len(gradients)
        gradient = variables.nest(nodes[1:count])
        if has_aux:
            return (nodes[0], unflatten(aux_tree, nodes[count:])), gradient
        return nodes[0], gradient

    return Jitted(_named(value_and_gradient, function))


def grad(function: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Jitted:
    """x -> df/dx of a scalar function, in the nesting of x (a tuple where argnums is one)."""
    both = value_and_grad(function, argnums, has_aux).function

    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, result = both(*args, **kwargs)
        return (result, value[1]) if has_aux else result

    return Jitted(_named(gradient, function))


def hessian(function: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """x -> d2f/dx2 of a scalar function: shape x.shape + x.shape (nested where x is).

    One Hessian-vector product (the derivative of <df/dx, v>) is compiled and run over the basis.
    """

    def product(vectors: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        variables = _Variables(args, argnums)
        value = _scalar(function(*variables.args, **kwargs))
        gradients = differentiate(value, variables.nodes)
        tangents = [as_node(v) for v in vectors]
        terms = [ops.sum(g * v) for g, v in zip(gradients, tangents, strict=True)]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return variables.resolve(list(differentiate(total, variables.nodes)))

    compiled = Jitted(_named(product, function))

    def second_derivative(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = _selected(args, argnums)
        if any(isinstance(leaf, Node) for leaf in flatten((args, kwargs))[0]):
            shapes = [as_node(leaf).type for leaf in leaves]
            zeros = [np.zeros(_static(t.shape), t.dtype.numpy) for t in shapes]
            stack: Callable[[Sequence[Any]], Any] = _stack
        else:
            arrays = [_floating(np.asarray(leaf)) for leaf in leaves]
            zeros = [np.zeros(a.shape, a.dtype) for a in arrays]
            stack = np.stack
        rows = [_hessian_row(compiled, zeros, i, args, kwargs, stack) for i in range(len(zeros))]
        return unflatten(tree, [unflatten(tree, row) for row in rows])

    return _named(second_derivative, function)


def jvp(
    function: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]
) -> tuple[Any, Any]:
    """(f(primals), its directional derivative along tangents): the vjp of a vjp."""

    def pushforward(points: Sequence[Any], directions: Sequence[Any]) -> Any:
        variables = _Variables(tuple(points), tuple(range(len(points))))
        results, tree = flatten(function(*variables.args))
        outputs = [as_node(r) for r in results]
        vectors = [as_node(d) for d in flatten(list(directions))[0]]
        derivatives = [_directional(y, variables.nodes, vectors) for y in outputs]
        nodes = variables.resolve([*outputs, *derivatives])
        return (
            unflatten(tree, nodes[: len(outputs)]),
            unflatten(tree, nodes[len(outputs) :]),
        )

    if len(primals) != len(tangents):
        raise TypeError(f"jvp: {len(primals)} primals but {len(tangents)} tangents")
    directions = _like(list(tangents), list(primals), "jvp: tangents")
    result: tuple[Any, Any] = _remembered(function, "jvp", pushforward)(list(primals), directions)
    return result


def vjp(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], Any]]:
    """(f(primals), the function cotangent -> tuple of cotangents of the primals)."""

    def pullback(points: Sequence[Any], cotangent: Any) -> Any:
        variables = _Variables(tuple(points), tuple(range(len(points))))
        outputs = [as_node(r) for r in flatten(function(*variables.args))[0]]
        given = [as_node(c) for c in flatten(cotangent)[0]]
        if len(given) != len(outputs):
            raise ValueError(f"vjp: {len(outputs)} results but {len(given)} cotangents")
        totals: list[Node] = []
        for y, g in zip(outputs, given, strict=True):
            parts = differentiate(y, variables.nodes, cotangent=g)
            totals = [a + b for a, b in zip(totals, parts, strict=True)] if totals else list(parts)
        return variables.nest(variables.resolve(totals))

    value = _remembered(function, "value", lambda points: function(*points))(list(primals))
    backward = _remembered(function, "vjp", pullback)

    def transposed(cotangent: Any) -> Any:
        return backward(list(primals), _like(cotangent, value, "vjp: the cotangent"))

    return value, transposed


class _Variables:
    """The arguments named by argnums, with every leaf replaced by a fresh input node.

    Differentiating with respect to fresh inputs keeps an argument apart from equal expressions
    inside the function; `resolve` puts the arguments back.
    """

    def __init__(self, args: Sequence[Any], argnums: Argnums) -> None:
        numbers = _numbers(args, argnums)
        self.replaced: dict[Node, Node] = {}
        self.args = list(args)
        for number in numbers:
            self.args[number] = map_leaves(self._variable, args[number])
        leaves, self.tree = _selected(self.args, argnums)
        self.nodes: list[Node] = leaves

    def _variable(self, leaf: Any) -> Node:
        value = as_node(leaf)
        if not value.dtype.is_float:
            raise TypeError(
                f"derivatives need floating point arguments, got {value.type}: convert it first"
            )
        variable = ops.input(f"variable{next(_fresh)}", value.dtype, value.shape)
        self.replaced[variable] = value
        return variable

    def resolve(self, nodes: Sequence[Node]) -> list[Node]:
        graph = Graph("resolve", (), {str(i): node for i, node in enumerate(nodes)})
        return list(substitute(graph, self.replaced).outputs.values())

    def nest(self, nodes: Sequence[Any]) -> Any:
        return unflatten(self.tree, nodes)


def _numbers(args: Sequence[Any], argnums: Argnums) -> list[int]:
    numbers = [argnums] if isinstance(argnums, int) else list(argnums)
    for n in numbers:
        if not -len(args) <= n < len(args):
            raise ValueError(f"argnums names argument {n}, but {len(args)} were given")
    return [n % len(args) for n in numbers]


def _selected(args: Sequence[Any], argnums: Argnums) -> tuple[list[Any], Tree]:
    chosen = tuple(args[n] for n in _numbers(args, argnums))
    return flatten(chosen[0] if isinstance(argnums, int) else chosen)


def _scalar(value: Any) -> Node:
    node = as_node(value)
    if node.shape != ():
        raise TypeError(f"the function must give a scalar, not {node.type}: sum it or take a mean")
    if not node.dtype.is_float:
        raise TypeError(f"the function must give a floating point number, not {node.type}")
    return node


def _directional(y: Node, points: Sequence[Node], vectors: Sequence[Node]) -> Node:
    """d y along vectors: the vjp is linear in its cotangent u; differentiate it by u."""
    if not y.dtype.is_float:
        return as_node(np.zeros(_static(y.shape), y.dtype.numpy))
    u = ops.input(f"variable{next(_fresh)}", y.dtype, y.shape)
    pulled = differentiate(y, points, cotangent=u)
    total: Node | None = None
    for part, vector in zip(pulled, vectors, strict=True):
        (pushed,) = differentiate(part, [u], cotangent=vector)
        total = pushed if total is None else total + pushed
    assert total is not None
    graph = Graph("resolve", (), {"result": total})
    zeros = as_node(np.zeros(_static(y.shape), y.dtype.numpy))
    return substitute(graph, {u: zeros}).outputs["result"]


def _hessian_row(
    product: Jitted,
    zeros: list[np.ndarray[Any, Any]],
    i: int,
    args: Any,
    kwargs: Any,
    stack: Callable[[Sequence[Any]], Any],
) -> list[Any]:
    """d2f / dx_i dx_j for every j: the product with every basis vector of x_i."""
    products = []
    for element in range(zeros[i].size):
        basis = zeros[i].copy()
        basis.reshape(-1)[element] = 1
        vectors = [basis if k == i else z for k, z in enumerate(zeros)]
        products.append(product(vectors, *args, **kwargs))
    blocks = []
    for j, zero in enumerate(zeros):
        shape = zeros[i].shape + zero.shape
        parts = [p[j] for p in products]
        blocks.append(stack(parts).reshape(shape) if parts else np.zeros(shape, zero.dtype))
    return blocks


def _stack(rows: Sequence[Node]) -> Node:
    return ops.concatenate([ops.reshape(r, (1, *r.shape)) for r in rows], 0)


def _static(shape: Sequence[Any]) -> tuple[int, ...]:
    if not all(isinstance(d, int) for d in shape):
        raise TypeError("this derivative needs shapes without symbolic extents")
    return tuple(shape)


def _floating(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind != "f":
        raise TypeError(f"derivatives need floating point arguments, got {array.dtype}")
    return array


def _like(given: Any, model: Any, what: str) -> Any:
    """`given` with the dtypes of `model`; TypeError where nesting or shapes differ."""
    leaves, tree = flatten(given)
    wanted, wanted_tree = flatten(model)
    if tree != wanted_tree:
        raise TypeError(f"{what} must be nested like the value that they belong to")
    fitted = []
    for leaf, other in zip(leaves, wanted, strict=True):
        shape, other_shape = tuple(np.shape(leaf)), tuple(np.shape(other))
        if shape != other_shape:
            raise TypeError(f"{what}: shape {shape} where {other_shape} is needed")
        if not isinstance(leaf, Node):
            dtype = other.dtype.numpy if isinstance(other, Node) else np.asarray(other).dtype
            leaf = np.asarray(leaf, dtype)
        fitted.append(leaf)
    return unflatten(tree, fitted)


def _remembered(function: Any, kind: str, derived: Callable[..., Any]) -> Jitted:
    """The compiled form of `derived`, kept with the function it was derived from."""
    table = getattr(function, "__dict__", None)
    if table is None:
        return Jitted(_named(derived, function))
    cache: dict[str, Jitted] = table.setdefault("_nncompiler_derived", {})
    if kind not in cache:
        cache[kind] = Jitted(_named(derived, function))
    return cache[kind]


def _named(derived: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """`derived` under a name that tells which function it comes from."""
    name = getattr(function, "__name__", "function")
    plain = name if name.isidentifier() else "function"
    derived.__name__ = f"{plain}_{derived.__name__}" if derived.__name__.isidentifier() else plain
    derived.__doc__ = getattr(function, "__doc__", None)
    return derived


__all__ = ["grad", "hessian", "jit", "jvp", "value_and_grad", "vjp"]
