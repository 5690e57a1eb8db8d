"""Takes an activation's name, (name, {parameters}) or function, gives it as a function of values.

All are plain compositions of primitives, written so that neither they nor their derivatives
overflow; a branch that is not taken never sees an argument at which it is infinite.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from ir import ops
from ir.graph import Node
from nncompiler.errors import call_user
from nncompiler.frontend.names import suggest

Activation = Callable[[Node], Node]


def linear(x: Node, a: float = 1.0, b: float = 0.0) -> Node:
    """a x + b; the value itself for a = 1, b = 0."""
    scaled = x if a == 1.0 else a * x
    return scaled if b == 0.0 else scaled + b


def heaviside(x: Node) -> Node:
    """0 below 0, 1/2 at 0, 1 above; its derivative is 0."""
    return 0.5 * (ops.sign(x) + 1.0)


def leaky_relu(x: Node, slope: float = 0.01) -> Node:
    """x above 0, slope x below."""
    return ops.where(x > 0.0, x, slope * x)


def elu(x: Node, alpha: float = 1.0) -> Node:
    """x above 0, alpha (e^x - 1) below."""
    below = ops.where(x > 0.0, 0.0, x)
    return ops.where(x > 0.0, x, alpha * ops.expm1(below))


def selu(x: Node) -> Node:
    """The scaled elu that keeps mean 0 and variance 1 (Klambauer et al. 2017)."""
    return 1.0507009873554804934193349852946 * elu(x, 1.6732632423543772848170429916717)


def gelu(x: Node, approximate: str = "none") -> Node:
    """x Phi(x), exact; with approximate="tanh" its usual approximation."""
    if approximate == "tanh":
        inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * (x * x * x))
        return 0.5 * x * (1.0 + ops.tanh(inner))
    if approximate != "none":
        raise ValueError(f"gelu's approximate is 'none' or 'tanh', not {approximate!r}")
    return 0.5 * x * (1.0 + ops.erf(x * math.sqrt(0.5)))


def silu(x: Node) -> Node:
    """x sigmoid(x)."""
    return x * ops.sigmoid(x)


def softplus(x: Node) -> Node:
    """log(1 + e^x), without overflow; its derivative at 0 is 1/2."""
    positive = x > 0.0
    return ops.where(positive, x, 0.0) + ops.log1p(ops.exp(ops.where(positive, -x, x)))


def softsign(x: Node) -> Node:
    """x / (1 + |x|)."""
    return x / (1.0 + abs(x))


def hard_sigmoid(x: Node) -> Node:
    """clip(x/6 + 1/2, 0, 1)."""
    return ops.minimum(ops.maximum(x * (1.0 / 6.0) + 0.5, 0.0), 1.0)


def hard_tanh(x: Node) -> Node:
    """clip(x, -1, 1)."""
    return ops.minimum(ops.maximum(x, -1.0), 1.0)


def mish(x: Node) -> Node:
    """x tanh(softplus(x))."""
    return x * ops.tanh(softplus(x))


def gaussian(x: Node) -> Node:
    """e^(-x^2)."""
    return ops.exp(-(x * x))


def sine(x: Node) -> Node:
    """sin x."""
    return ops.sin(x)


def softmax(x: Node, axis: int = -1) -> Node:
    """e^x / sum of e^x along an axis."""
    return ops.softmax(x, axis)


def log_softmax(x: Node, axis: int = -1) -> Node:
    """x - log of the sum of e^x along an axis."""
    return ops.log_softmax(x, axis)


# --------------------------------------------------------------------------- neat-python's own


def clamp(x: Node, low: float, high: float) -> Node:
    """x moved into low .. high."""
    return ops.minimum(ops.maximum(x, low), high)


def neat_sigmoid(x: Node) -> Node:
    """neat-python's sigmoid: that of 5 x, clipped to -60 .. 60."""
    return ops.sigmoid(clamp(5.0 * x, -60.0, 60.0))


def neat_tanh(x: Node) -> Node:
    """neat-python's tanh: that of 2.5 x, clipped to -60 .. 60."""
    return ops.tanh(clamp(2.5 * x, -60.0, 60.0))


def neat_sin(x: Node) -> Node:
    """neat-python's sin: that of 5 x, clipped to -60 .. 60."""
    return ops.sin(clamp(5.0 * x, -60.0, 60.0))


def neat_gauss(x: Node) -> Node:
    """neat-python's gauss: e^(-5 x^2) of x clipped to -3.4 .. 3.4."""
    z = clamp(x, -3.4, 3.4)
    return ops.exp(-5.0 * (z * z))


def neat_softplus(x: Node) -> Node:
    """neat-python's softplus: 0.2 log(1 + e^(5 x)), with 5 x clipped to -60 .. 60."""
    return 0.2 * softplus(clamp(5.0 * x, -60.0, 60.0))


def neat_lelu(x: Node) -> Node:
    """neat-python's lelu: x above 0, 0.005 x below."""
    return leaky_relu(x, 0.005)


def neat_inv(x: Node) -> Node:
    """neat-python's inv: 1 / x, and 0 at 0."""
    zero = ops.eq(x, 0.0)
    return ops.where(zero, 0.0, 1.0 / ops.where(zero, 1.0, x))


def neat_log(x: Node) -> Node:
    """neat-python's log: of x, at least 1e-7."""
    return ops.log(ops.maximum(x, 1e-7))


def neat_exp(x: Node) -> Node:
    """neat-python's exp: of x clipped to -60 .. 60."""
    return ops.exp(clamp(x, -60.0, 60.0))


def hat(x: Node) -> Node:
    """max(0, 1 - |x|)."""
    return ops.maximum(1.0 - abs(x), 0.0)


def square(x: Node) -> Node:
    """x^2."""
    return x * x


def cube(x: Node) -> Node:
    """x^3."""
    return x * x * x


_OWN = (
    linear,
    heaviside,
    leaky_relu,
    elu,
    selu,
    gelu,
    silu,
    softplus,
    softsign,
    hard_sigmoid,
    hard_tanh,
    mish,
    gaussian,
    sine,
    softmax,
    log_softmax,
    neat_sigmoid,
    neat_tanh,
    neat_sin,
    neat_gauss,
    neat_softplus,
    neat_lelu,
    neat_inv,
    neat_log,
    neat_exp,
    hat,
    square,
    cube,
)
_PRIMITIVE: tuple[str, ...] = (
    "relu",
    "sigmoid",
    "tanh",
    "exp",
    "log",
    "log1p",
    "expm1",
    "sqrt",
    "rsqrt",
    "erf",
    "sin",
    "cos",
    "abs",
    "sign",
    "neg",
    "floor",
    "ceil",
    "round",
)
_ALIASES = {"identity": "linear", "swish": "silu", "step": "heaviside"}

ACTIVATIONS: dict[str, Callable[..., Node]] = {f.__name__: f for f in _OWN}
ACTIVATIONS |= {name: getattr(ops, name) for name in _PRIMITIVE}
ACTIVATIONS |= {alias: ACTIVATIONS[name] for alias, name in _ALIASES.items()}

# These look at a whole row, so they are no function of a single neuron.
ROW_WISE = frozenset({"softmax", "log_softmax"})


def make_activation(value: object) -> tuple[str, Activation]:
    """(name, function of a value) from None, a name, (name, {parameters}) or a Python function.

    Raises ValueError for an unknown name or parameter.
    """
    match value:
        case None:
            return "linear", linear
        case str(name):
            return _named(name, {})
        case (str(name), Mapping() as parameters) | [str(name), Mapping() as parameters]:
            return _named(name, parameters)
        case _ if callable(value):
            return getattr(value, "__name__", "function"), functools.partial(_checked, value)
    raise ValueError(
        f"an activation is a name, a (name, parameters) pair or a function, not {value!r}"
    )


def parameters_of(name: str) -> Mapping[str, Any]:
    """The parameters of an activation and their defaults."""
    if name in _PRIMITIVE:
        return {}
    signature = inspect.signature(ACTIVATIONS[name])
    return {k: p.default for k, p in list(signature.parameters.items())[1:]}


def _named(name: str, parameters: Mapping[str, Any]) -> tuple[str, Activation]:
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation '{name}'; {suggest(name, ACTIVATIONS)}")
    for key in parameters:
        if key not in parameters_of(name):
            guess = suggest(key, parameters_of(name))
            raise ValueError(f"activation '{name}' has no parameter '{key}'; {guess}")
    name = _ALIASES.get(name, name)
    return name, functools.partial(ACTIVATIONS[name], **parameters)


def _checked(function: Callable[[Node], Any], x: Node) -> Node:
    y = call_user("the activation function", function, x)
    if not isinstance(y, Node):
        raise ValueError(f"the activation function gave {y!r}, not a symbolic value")
    return y
