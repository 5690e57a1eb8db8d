"""Takes torch's layers, gives them with our results: states, attention in four parts, blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn


class Lambda(nn.Module):
    """A function of values, and the module it uses, if any, as `inner`."""

    def __init__(self, function: Callable[..., Any], inner: Any = None) -> None:
        super().__init__()
        self.function, self.inner = function, inner

    def forward(self, *values: Any) -> Any:
        return self.function(*values) if self.inner is None else self.function(self.inner, *values)


class Recurrent(nn.Module):
    """torch's layer with our result: the last state of every direction, or all of them; with a mask
    as second value the rows end where it ends."""

    def __init__(self, cell: Any, every: bool, one_bias: bool) -> None:
        super().__init__()
        self.cell, self.every = cell, every
        if one_bias:  # torch's RNN has two, of which ours is the sum
            for name, parameter in cell.named_parameters():
                if name.startswith("bias_hh"):
                    nn.init.zeros_(parameter)

    def forward(self, x: Any, mask: Any = None) -> Any:
        if mask is None:
            y, last = self.cell(x)
        else:
            packed = nn.utils.rnn.pack_padded_sequence(
                x, mask.sum(1), batch_first=True, enforce_sorted=False
            )
            y, last = self.cell(packed)
            y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
        state = last[0] if isinstance(last, tuple) else last
        ends = state[-2 if self.cell.bidirectional else -1 :].transpose(0, 1).flatten(1)
        if not self.every:
            return ends
        if mask is None:
            return y
        held = ends[:, None].expand_as(y).clone()  # our state stays as it is after the end
        held[..., self.cell.hidden_size :] = 0.0  # and has not begun yet in reverse
        return torch.where(mask[..., None], y, held)


class Attention(nn.Module):
    """torch's scaled products of heads between our four maps; key and value may have features of
    their own."""

    names: Mapping[str, str] = {
        **{f"{n}.weight": f"{n}.weight.T" for n in ("query", "key", "value", "output")},
        **{f"{n}.bias": f"{n}.bias" for n in ("query", "key", "value", "output")},
    }

    def __init__(self, features: int, heads: int, causal: bool = False, *others: int) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        inputs = (features, *others, *(others or (features,))[-1:] * 2)
        for name, size in zip(("query", "key", "value"), inputs, strict=False):
            setattr(self, name, nn.Linear(size, features))
        self.output = nn.Linear(features, features)

    def forward(self, query: Any, key: Any = None, value: Any = None, mask: Any = None) -> Any:
        key = query if key is None else key
        value = key if value is None else value
        q, k, v = (
            m(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for m, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        if mask is not None and mask.ndim == 2 and mask.shape[0] == query.shape[0]:
            mask = mask[:, None, None]
        elif mask is not None and mask.ndim == 3:
            mask = mask[:, None]
        if self.causal:
            past = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
            mask = past if mask is None else mask & past
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.output(y.transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    """torch's transformer block, its attention in four parts."""

    def __init__(self, features: int, heads: int, wide: int, *, norm_first: bool) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(
            features, heads, wide, 0.0, "gelu", batch_first=True, norm_first=norm_first
        )

    def forward(self, x: Any) -> Any:
        return self.block(x)


class Decoder(nn.Module):
    """torch's block that attends to itself, causally, and to a memory."""

    def __init__(self, features: int, heads: int, wide: int) -> None:
        super().__init__()
        self.block = nn.TransformerDecoderLayer(
            features, heads, wide, 0.0, "relu", batch_first=True
        )

    def forward(self, x: Any, memory: Any) -> Any:
        times = x.shape[1]
        future = torch.ones(times, times, dtype=torch.bool).triu(1)
        return self.block(x, memory, tgt_mask=future)
