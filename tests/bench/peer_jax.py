"""Takes a workload, gives it in JAX: the whole step under one jit, state donated, one thread."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import jax
import jax.numpy as jnp

from tests.bench.workloads import Workload, batches, weights

NAME = "jax"
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "": lambda z: z,
}

# the caller's own thread computes: half the latency of small calls
jax.config.update("jax_cpu_enable_async_dispatch", False)


def build(w: Workload) -> dict[str, Callable[[], Any]]:
    data = [tuple(jnp.asarray(a) for a in pair) for pair in batches(w)]
    if w.mode == "product":
        product = jax.jit(jnp.matmul)
        a, b = data[0]
        return {"": lambda: product(a, b).block_until_ready()}
    parameters = [(jnp.asarray(m), jnp.asarray(b)) for m, b in weights(w)]
    turns = cycle(data)
    if w.mode == "infer":
        forward = jax.jit(lambda p, x: predict(w, p, x))
        return {"": lambda: forward(parameters, next(turns)[0]).block_until_ready()}
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    state = (parameters, zeros, jax.tree.map(jnp.zeros_like, parameters), jnp.float32(0))
    step = one_step(w)
    many = several(w, step)
    run = jax.jit(step if w.mode == "step" else many, donate_argnums=0)

    def call() -> Any:
        nonlocal state
        state, loss = run(state, *next(turns))
        return loss.block_until_ready()

    return {"": call}


def several(w: Workload, step: Callable[..., Any]) -> Callable[..., Any]:
    """`repeat` steps on one batch, or an epoch with its short last batch, inside one jit."""

    def loop(state: Any, x: Any, t: Any) -> Any:
        def body(_: Any, carry: Any) -> Any:
            return step(carry[0], x, t)

        return jax.lax.fori_loop(0, w.repeat, body, (state, jnp.float32(0)))

    def epoch(state: Any, x: Any, t: Any) -> Any:
        whole = len(x) // w.batch
        cut = whole * w.batch
        xs = x[:cut].reshape(whole, w.batch, -1)
        ts = t[:cut].reshape(whole, w.batch)
        state, losses = jax.lax.scan(lambda s, pair: step(s, *pair), state, (xs, ts))
        state, last = step(state, x[cut:], t[cut:])
        return state, (losses.sum() * w.batch + last * (len(x) - cut)) / len(x)

    return loop if w.mode == "loop" else epoch


def predict(w: Workload, parameters: Any, x: Any) -> Any:
    for i, (matrix, bias) in enumerate(parameters):
        name = w.activation if i < len(parameters) - 1 else w.output
        x = ACTIVATIONS[name](x @ matrix + bias)
    return x


def one_step(w: Workload) -> Callable[..., Any]:
    def loss_of(parameters: Any, x: Any, t: Any) -> Any:
        y = predict(w, parameters, x)
        if w.loss == "mse":
            return ((y - t) ** 2).mean()
        picked = jnp.take_along_axis(jax.nn.log_softmax(y), t[:, None], 1)
        return -picked.mean()

    def step(state: Any, x: Any, t: Any) -> Any:
        p, m, v, n = state
        loss, g = jax.value_and_grad(loss_of)(p, x, t)
        if w.optimizer == "adam":
            n = n + 1
            m = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
            v = jax.tree.map(lambda a, b: 0.999 * a + 0.001 * b * b, v, g)
            rate, scale = w.lr / (1 - 0.9**n), 1 / (1 - 0.999**n)
            p = jax.tree.map(lambda a, b, c: a - rate * b / (jnp.sqrt(c * scale) + 1e-8), p, m, v)
        elif w.optimizer == "momentum":
            m = jax.tree.map(lambda a, b: 0.9 * a + b, m, g)
            p = jax.tree.map(lambda a, b: a - w.lr * b, p, m)
        else:
            p = jax.tree.map(lambda a, b: a - w.lr * b, p, g)
        return (p, m, v, n), loss

    return step
