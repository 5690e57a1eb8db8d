"""Takes nothing, gives the attributes that kinds have in common, and makes what they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ir.graph import Node
from nncompiler.frontend.initializers import Fans
from nncompiler.frontend.kinds import Attributes
from nncompiler.frontend.site import Site


@dataclass(frozen=True)
class Drawn(Attributes):
    """Of a parameter: how it is drawn, what it costs, and whether it is trained."""

    initializer: object = None
    regularizer: object = None
    trainable: bool = True

    def weight(
        self, site: Site, name: str, shape: Sequence[int], *, fans: Fans, **more: Any
    ) -> Node:
        """The parameter of that name; `more` as in `Site.parameter`."""
        return site.parameter(
            name,
            shape,
            fans=fans,
            initializer=self.initializer,
            regularizer=self.regularizer,
            trainable=self.trainable,
            **more,
        )


@dataclass(frozen=True)
class Biased(Drawn):
    """Of a layer with weights and biases."""

    use_bias: bool = True
    bias_initializer: object = "zeros"

    def bias(self, site: Site, name: str, shape: Sequence[int], *, fans: Fans) -> Node:
        """The parameter of that name, which the model's regularizer leaves alone."""
        return site.parameter(
            name,
            shape,
            fans=fans,
            initializer=self.bias_initializer,
            trainable=self.trainable,
            is_weight=False,
        )


@dataclass(frozen=True)
class Activated(Biased):
    """Of a layer with weights, biases and an activation."""

    activation: object = None


@dataclass(frozen=True)
class Weighted(Activated):
    """Of a layer whose weight can be divided by one of its norms; see `make_weight`."""

    spectral_norm: bool = False
    weight_norm: bool = False


DRAWN, BIASED, ACTIVATED, WEIGHTED = Drawn(), Biased(), Activated(), Weighted()
