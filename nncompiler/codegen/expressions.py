"""Takes scalar and index expressions, gives LLVM values: for one point, or for all lanes at once.

An expression that does not depend on the variable in the lanes stays a scalar, and is spread over
the lanes only where it meets one that does. Loads of neighbouring elements become vector loads,
loads at a distance gathers; where lanes are masked out, no memory is touched.
"""

from __future__ import annotations

from collections.abc import Mapping

from ir.index import Guard, Index
from ir.loops import Buffer
from ir.scalar import Scalar
from ir.types import Extent, boolean, i64
from nncompiler.codegen.emit import Emitter
from nncompiler.codegen.indices import Indices
from nncompiler.codegen.lanes import Cover, cover, lane_offsets, lane_values
from nncompiler.codegen.math import emit_apply
from nncompiler.codegen.neighbours import Neighbours
from nncompiler.codegen.scope import Accumulator, Binding, Dependences, Scope
from nncompiler.codegen.streams import Streams
from nncompiler.codegen.values import Value, constant, memory_type

Guards = tuple[Guard, ...]


class Expressions(Indices):
    """Evaluates expressions into an Emitter, under the present bindings."""

    def __init__(
        self,
        emitter: Emitter,
        pointers: Mapping[str, str],
        buffers: Mapping[str, Buffer],
        symbols: Mapping[str, Value],
        streams: Streams,
    ) -> None:
        super().__init__(emitter, symbols)
        self.pointers = dict(pointers)
        self.buffers = buffers
        self.streams = streams
        self.values: dict[str, Value] = {}
        self.shifted: Neighbours | None = None  # of a shifted vector
        self.accumulators: dict[str, Accumulator] = {}
        self.scopes = [Scope()]
        self.dependences = Dependences()
        self.shared: frozenset[Scalar] = frozenset()  # what is used more than once

    def push(self) -> None:
        self.e.push()
        self.scopes.append(Scope())

    def pop(self) -> None:
        self.e.pop()
        self.scopes.pop()

    # ------------------------------------------------------------ scalars

    def evaluate(self, s: Scalar) -> Value:
        """The value of an expression; computed once per scope and set of bindings."""
        if s.kind == "const":
            return constant(s.value, s.dtype)
        key = (s, tuple(self._binding_key(name) for name in self.dependences(s)))
        for scope in reversed(self.scopes):
            if key in scope.known:
                return scope.known[key]
        value = self._compute(s)
        self.scopes[-1].known[key] = value
        return value

    def _binding_key(self, name: str) -> str:
        if name in self.bindings:
            return self.bindings[name].key
        return self.reference(name).text

    def reference(self, name: str) -> Value:
        """A let, or an accumulator that is complete: its lanes are combined at the first use."""
        if name in self.values:
            return self.values[name]
        accumulator = self.accumulators[name]
        if accumulator.partial:
            accumulator.value = self.e.reduce(accumulator.combine, accumulator.value)
            accumulator.partial = False
        return accumulator.value

    def _compute(self, s: Scalar) -> Value:
        match s.kind:
            case "load":
                return self._load(s)
            case "at":
                return self._index_value(s.index, s.dtype)
            case "extent":
                return self.e.convert(self.extent(s.dim), s.dtype)
            case "ref":
                return self.reference(s.name)
        product = self._added_product(s)
        if product is not None:
            return self.multiply_add(*product)
        args = [self.evaluate(a) for a in s.args]
        lanes = max((a.lanes for a in args), default=1)
        args = [self.e.splat(a, lanes) for a in args]
        return emit_apply(self.e, s.name, args, s.dtype, lanes)

    def factors(self, s: Scalar) -> tuple[Value, Value] | None:
        """The factors of a real product that is used in one place only."""
        if s.kind != "apply" or s.name != "mul" or not s.dtype.is_float or s in self.shared:
            return None
        a, b = s.args
        return self.evaluate(a), self.evaluate(b)

    def _added_product(self, s: Scalar) -> tuple[Value, Value, Value] | None:
        """a, b, c of c + a * b, a * b + c, c - a * b or a * b - c.

        Not of the difference of two products: a * b - b * a has to be zero.
        """
        if s.kind != "apply" or s.name not in ("add", "sub"):
            return None
        left, right = self.factors(s.args[0]), self.factors(s.args[1])
        negative = s.name == "sub"
        if right is not None and not (negative and left is not None):
            a, b = right
            return self.e.fneg(a) if negative else a, b, self.evaluate(s.args[0])
        if left is not None and right is None:
            c = self.evaluate(s.args[1])
            return *left, self.e.fneg(c) if negative else c
        return None

    def multiply_add(self, *values: Value) -> Value:
        """a * b + c, in as many lanes as any of them has."""
        lanes = max(v.lanes for v in values)
        a, b, c = (self.e.splat(v, lanes) for v in values)
        return self.e.fma(a, b, c)

    # ------------------------------------------------------------ memory

    def mask(self, index: Index) -> Value | None:
        """The lanes that exist, for an index over the variable in the lanes."""
        for v in index.variables:
            binding = self.bindings[v.name]
            if binding.lanes > 1:
                return binding.mask
        return None

    @property
    def lane_mask(self) -> Value | None:
        for binding in self.bindings.values():
            if binding.mask is not None:
                return binding.mask
        return None

    def address(self, name: str, base: Value, *, inside: bool = True) -> str:
        """Pointer to an element; `inside` promises that it lies in the buffer."""
        if inside:
            return self.e.address(self.pointers[name], base, self.buffers[name].dtype)
        element = memory_type(self.buffers[name].dtype)
        return self.e.op(f"getelementptr {element}, ptr {self.pointers[name]}, i64 {base.text}")

    def _load(self, s: Scalar) -> Value:
        if self.shifted is not None:
            found = self.shifted.load(self, s)
            if found is not None:
                return found
        fill = constant(s.fill, s.dtype)
        simple = self.affine(s.index) if not s.args else None
        is_torn = simple is None or simple[1] not in (0, 1)
        if is_torn and not s.args and s.dtype != boolean:
            there, others = self._lanes_there(s.guards)
            parts = self._cover(s.index, there)
            if parts is not None:
                return self._load_covered(s, parts, self._condition(others), fill)
        condition = self._condition(s.guards)
        if simple is None or is_torn:
            return self._gather(s, condition, fill)
        base, stride = simple
        if stride == 1:
            return self._load_neighbours(s, base, condition, fill)
        return self._load_one(s, base, condition, fill)

    def _load_one(self, s: Scalar, base: Value, condition: Value | None, fill: Value) -> Value:
        if condition is None:
            return self.e.load(self.address(s.name, base), s.dtype)
        if condition.lanes > 1:
            base = self.e.splat(base, condition.lanes)
            return self._gather_at(s, base, condition, fill)
        safe = self.e.select(condition, base, constant(0, i64))
        value = self.e.load(self.address(s.name, safe), s.dtype)
        return self.e.select(condition, value, fill)

    def _load_neighbours(
        self, s: Scalar, base: Value, condition: Value | None, fill: Value
    ) -> Value:
        lanes = self._lanes_of(s.index)
        mask = self._both(self.mask(s.index), condition, lanes)
        if mask is None:
            pointer = self.address(s.name, base)
            self.streams.before_load(self.e, s.name, s.index, pointer)
            return self.e.load(pointer, s.dtype, lanes)
        pointer = self.address(s.name, base, inside=False)
        return self.e.masked_load(pointer, s.dtype, mask, fill=self.e.splat(fill, lanes))

    def _lanes_there(self, guards: Guards) -> tuple[list[bool] | None, Guards]:
        """In which lanes the guards hold that depend on nothing but the lane, and the others."""
        there: list[bool] | None = None
        others = []
        for guard in guards:
            values = lane_values(guard.value, self._lanes_by_name(guard.value))
            if values is None or len(values) == 1 or isinstance(guard.high, Extent):
                others.append(guard)
                continue
            holds = [guard.low <= v < guard.high for v in values]
            there = [a and b for a, b in zip(there, holds, strict=True)] if there else holds
        return there, tuple(others)

    def _lanes_by_name(self, index: Index) -> dict[str, int]:
        return {v.name: self.bindings[v.name].lanes for v in index.variables}

    def _cover(self, index: Index, there: list[bool] | None) -> Cover | None:
        offsets = lane_offsets(index, self._lanes_by_name(index))
        if offsets is None:
            return None
        there = there or [True] * len(offsets)
        if len(there) != len(offsets):
            return None
        return cover([o if t else None for o, t in zip(offsets, there, strict=True)])

    def _load_covered(self, s: Scalar, parts: Cover, condition: Value | None, fill: Value) -> Value:
        """Lanes at known distances: loads and a shuffle instead of a gather."""
        lanes, width = len(parts.picks), parts.width
        mask = self._both(self.mask(s.index), condition, lanes)
        base = self._first_lane(s.index)
        found = []
        for number, start in enumerate(parts.starts):
            place = self.e.add(base, constant(start, i64))
            if mask is None:
                found.append(self.e.load(self.address(s.name, place), s.dtype, width))
                continue
            needed = self._needed(s.index, parts, number, mask, condition)
            pointer = self.address(s.name, place, inside=False)
            filler = self.e.splat(fill, width)
            found.append(self.e.masked_load(pointer, s.dtype, needed, fill=filler))
        picked = self._picked(found, parts, fill)
        if mask is None or condition is None or condition.lanes == 1:
            return picked
        return self.e.select(mask, picked, self.e.splat(fill, lanes))

    def _picked(self, found: list[Value], parts: Cover, fill: Value) -> Value:
        """The lanes from the vectors that hold them; `fill` in those that read nothing."""
        first, other = found[0], found[1] if len(found) > 1 else None
        there = [p is not None for p in parts.picks]
        if all(there):
            return self.e.shuffle(first, other, [p or 0 for p in parts.picks])
        if other is None:
            filler = self.e.splat(fill, parts.width)
            picks = [parts.width if p is None else p for p in parts.picks]
            return self.e.shuffle(first, filler, picks)
        picked = self.e.shuffle(first, other, [p or 0 for p in parts.picks])
        return self.e.select(_pattern(there), picked, self.e.splat(fill, len(there)))

    def _needed(
        self, index: Index, parts: Cover, number: int, mask: Value, condition: Value | None
    ) -> Value:
        """The elements of a vector that a lane reads."""
        if condition is None and None not in parts.picks:
            prefix = self._prefix(index, parts.starts[number], parts.width)
            if prefix is not None:
                return prefix
        if condition is not None and condition.lanes == 1 and self.mask(index) is None:
            return self.e.splat(condition, parts.width)
        return self._any_of(mask, parts.users(number))

    def _prefix(self, index: Index, start: int, width: int) -> Value | None:
        """The same where lanes are `stride` elements apart and the first `left` of them exist: the
        elements up to that of the last one."""
        simple = self.affine(index)
        lefts = (self.bindings[v.name].left for v in index.variables)
        left = next((left for left in lefts if left is not None), None)
        if simple is None or simple[1] < 1 or left is None:
            return None
        stride = simple[1]
        last = self.e.mul(self.e.sub(left, constant(1, i64)), constant(stride, i64))
        return self.e.lane_mask(self.e.add(last, constant(1 - start, i64)), width)

    def _any_of(self, mask: Value, users: list[list[int]]) -> Value:
        """For every element whether a lane that uses it exists."""
        none = constant(False, boolean, mask.lanes)
        result: Value | None = None
        for rank in range(max(map(len, users))):
            lanes = [u[rank] if rank < len(u) else mask.lanes for u in users]
            part = self.e.shuffle(mask, none, lanes)
            result = part if result is None else self.e.binary("or", result, part)
        assert result is not None
        return result

    def _first_lane(self, index: Index) -> Value:
        """The index in the first lane."""
        outer = dict(self.bindings)
        for v in index.variables:
            self.bindings[v.name] = Binding(outer[v.name].base)
        found = self.affine(index)
        self.bindings = outer
        assert found is not None, "without lanes an index has one value"
        return found[0]

    def _gather(self, s: Scalar, condition: Value | None, fill: Value) -> Value:
        simple = self.affine(s.index)
        rows = [self.e.convert(self.evaluate(arg), i64) for arg in s.args]
        if simple is not None and simple[1] == 1 and all(row.lanes == 1 for row in rows):
            base = simple[0]
            for row, stride in zip(rows, s.strides, strict=True):
                base = self.e.add(base, self.e.mul(row, constant(stride, i64)))
            return self._load_neighbours(s, base, condition, fill)
        index = self.lane_indices(s.index)
        for row, stride in zip(rows, s.strides, strict=True):
            lanes = max(index.lanes, row.lanes)
            row = self.e.mul(self.e.splat(row, lanes), constant(stride, i64, lanes))
            index = self.e.add(self.e.splat(index, lanes), row)
        if index.lanes == 1:
            return self._load_one(s, index, condition, fill)
        return self._gather_at(s, index, condition, fill)

    def _gather_at(self, s: Scalar, index: Value, condition: Value | None, fill: Value) -> Value:
        mask = self._both(self.lane_mask, condition, index.lanes)
        filler = self.e.splat(fill, index.lanes)
        return self.e.gather(self.pointers[s.name], index, s.dtype, mask, fill=filler)

    def _both(self, mask: Value | None, condition: Value | None, lanes: int) -> Value | None:
        present = [self.e.splat(v, lanes) for v in (mask, condition) if v is not None]
        if len(present) < 2:
            return present[0] if present else None
        return self.e.binary("and", *present)

    def _condition(self, guards: Guards) -> Value | None:
        """All guards together, for one point or for every lane."""
        terms: list[Value] = []
        for guard in guards:
            value = self.lane_indices(guard.value)
            low, high = guard.value.bounds
            if low is None or low < guard.low:
                terms.append(self.e.icmp("sge", value, constant(guard.low, i64, value.lanes)))
            if isinstance(guard.high, Extent) or high is None or high >= guard.high:
                limit = self.e.splat(self.extent(guard.high), value.lanes)
                terms.append(self.e.icmp("slt", value, limit))
        if not terms:
            return None
        lanes = max(t.lanes for t in terms)
        first, *others = sorted(terms, key=lambda t: t.lanes)  # spread what is the same everywhere
        result = first
        for term in others:
            result = self.e.binary("and", self.e.splat(result, term.lanes), term)
        result = self.e.splat(result, lanes)
        assert result.dtype == boolean
        return result

    def store(self, name: str, index: Index, value: Value) -> None:
        """buffer[index] = value, in every lane that exists."""
        simple = self.affine(index)
        if simple is not None and simple[1] == 0:
            assert value.lanes == 1, f"lanes of '{name}' are stored to one place"
            self.e.store(value, self.address(name, simple[0]))
            return
        lanes = self._lanes_of(index)
        value = self.e.splat(value, lanes)
        mask = self.mask(index)
        if simple is None or simple[1] != 1:
            self.e.scatter(value, self.pointers[name], self.lane_indices(index), mask)
        elif mask is None:
            self.streams.store(self.e, value, name, index, self.address(name, simple[0]))
        else:
            self.e.masked_store(value, self.address(name, simple[0], inside=False), mask)


def _pattern(lanes: list[bool]) -> Value:
    """A mask that is known."""
    text = ", ".join(f"i1 {str(lane).lower()}" for lane in lanes)
    return Value(f"<{text}>", boolean, len(lanes))
