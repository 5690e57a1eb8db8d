"""Takes nothing, prints a table: convolutions and their gradients beside PyTorch's.

    python -m tests.bench.convolutions                    everything, one thread
    python -m tests.bench.convolutions --only 1x1 --seconds 1

Ours gets and gives channels-first arrays; PyTorch is taken in the better of its two layouts, each
with its own data in that layout already. One process, in turns, the best time of each; ratios are
PyTorch / ours: above 1 PyTorch is slower.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

PARTS = ("y", "dx", "dw")


@dataclass(frozen=True)
class Case:
    """A convolution: x (batch, channels, size, size), weight (filters, channels / groups, k, k)."""

    name: str
    batch: int
    channels: int
    size: int
    filters: int
    kernel: int
    stride: int = 1
    pad: int = 0
    groups: int = 1

    @property
    def out(self) -> int:
        return (self.size + 2 * self.pad - self.kernel) // self.stride + 1

    @property
    def flops(self) -> float:
        points = self.batch * self.filters * self.out**2
        return 2.0 * points * self.channels // self.groups * self.kernel**2


CASES = (
    Case("3x3 64ch", 16, 64, 32, 64, 3, pad=1),
    Case("3x3 16ch", 32, 16, 32, 16, 3, pad=1),
    Case("3x3 32ch", 32, 32, 16, 32, 3, pad=1),
    Case("3x3 128ch", 16, 128, 16, 128, 3, pad=1),
    Case("3x3 512ch", 16, 512, 8, 512, 3, pad=1),
    Case("lenet 1", 32, 1, 28, 6, 5),
    Case("lenet 2", 32, 6, 14, 16, 5),
    Case("7x7 s2", 4, 3, 224, 64, 7, stride=2, pad=3),
    Case("3x3 s2 64ch", 16, 64, 32, 128, 3, stride=2, pad=1),
    Case("3x3 s2 16ch", 32, 16, 32, 32, 3, stride=2, pad=1),
    Case("depthwise", 16, 64, 32, 64, 3, pad=1, groups=64),
    Case("depthwise s2", 16, 64, 32, 64, 3, stride=2, pad=1, groups=64),
    Case("1x1 64ch", 16, 64, 32, 64, 1),
    Case("1x1 256ch", 16, 256, 16, 64, 1),
    Case("1x1 s2", 16, 64, 32, 128, 1, stride=2),
)


def arrays(case: Case) -> dict[str, Any]:
    random = np.random.default_rng(0)
    shapes = {
        "x": (case.batch, case.channels, case.size, case.size),
        "w": (case.filters, case.channels // case.groups, case.kernel, case.kernel),
        "g": (case.batch, case.filters, case.out, case.out),
    }
    return {k: random.standard_normal(s, dtype=np.float32) for k, s in shapes.items()}


def ours(case: Case, part: str, options: Any = None) -> Any:
    """A bound native call for y, dx or dw."""
    from ir import ops
    from ir.graph import Graph
    from nncompiler.autodiff import differentiate
    from nncompiler.compilation import compile_graph
    from nncompiler.frontend.convolution import convolve
    from runtime.session import Session

    data = arrays(case)
    x = ops.input("x", "f32", ("batch", *data["x"].shape[1:]))
    w = ops.input("w", "f32", data["w"].shape)
    g = ops.input("g", "f32", ("batch", *data["g"].shape[1:]))
    twice = (case.stride,) * 2
    y = convolve(x, w, twice, ((case.pad,) * 2,) * 2, (1, 1), case.groups)
    used = {"y": (x, w), "dx": (w, g), "dw": (x, g)}[part]
    node = y if part == "y" else differentiate(y, [x, w], g)[PARTS.index(part) - 1]
    artifact = compile_graph(Graph("convolution", used, {part: node}), options=options)
    return Session(artifact, {}, 1).bind(
        {str(n.attrs["id"]): data[str(n.attrs["id"])] for n in used}
    )


def theirs(case: Case, part: str) -> dict[str, Any]:
    """PyTorch's call per layout."""
    import torch

    found = {}
    formats = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
    for name, layout in formats.items():
        data = {
            k: torch.from_numpy(v).contiguous(memory_format=layout) for k, v in arrays(case).items()
        }
        common = ([case.stride] * 2, [case.pad] * 2, [1, 1], False, [0, 0], case.groups)

        def forward(d: Any = data, common: Any = common) -> Any:
            return torch.ops.aten.convolution(d["x"], d["w"], None, *common)

        mask = [part == "dx", part == "dw", False]

        def backward(d: Any = data, common: Any = common, mask: Any = mask) -> Any:
            found = torch.ops.aten.convolution_backward(d["g"], d["x"], d["w"], None, *common, mask)
            return found[0] if mask[0] else found[1]

        found[name] = forward if part == "y" else backward
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--seconds", type=float, default=0.5, help="per case, part and library")
    chosen = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before torch is imported
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import torch

    from tests.bench.timing import interleave, readable

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    print(f"{'':14}{'':4}{'ours':>9}{'GFLOP/s':>9}{'nchw':>9}{'nhwc':>9}{'ratio':>7}")
    for case in CASES:
        if chosen.only not in case.name:
            continue
        for part in chosen.parts.split(","):
            mine = ours(case, part)
            peers = theirs(case, part)
            expected = peers["nchw"]().contiguous().numpy()
            error = np.abs(mine()[part] - expected).max() / np.abs(expected).max()
            assert error < 1e-4, f"{case.name} {part}: error {error:.1e}"
            times = interleave({"ours": mine, **peers}, seconds=chosen.seconds)
            best = {name: t.best for name, t in times.items()}
            rate = case.flops / best["ours"] / 1e9
            shown = f"{readable(best['ours']):>9}{rate:9.0f}"
            shown += f"{readable(best['nchw']):>9}{readable(best['nhwc']):>9}"
            ratio = min(best["nchw"], best["nhwc"]) / best["ours"]
            print(f"{case.name:14}{part:4}{shown}{ratio:7.2f}  {error:.0e}", flush=True)


if __name__ == "__main__":
    main()
