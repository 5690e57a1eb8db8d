"""Takes groups of nodes, gives kernels: what to loop over, what to compute at a point.

group [contract dW, sub W - lr*dW]   ->   axes i:64 j:128, reduce k:batch
                                          acc = sum x[k*64 + i] * g[k*128 + j]
                                          W[i*128 + j] = W[i*128 + j] - lr[0] * acc
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ir import scalar
from ir.dependence import scalars
from ir.graph import Node
from ir.index import Guard, Var, flatten
from ir.loops import Buffer, Kernel, Reduction, Scatter, Write
from ir.op import READS_BACK, Lowering
from ir.scalar import Scalar
from ir.types import boolean, multiply
from nncompiler.access import Indices, element, point
from nncompiler.fuse import Fusion
from nncompiler.groups import Group, contract_variables, element_places, split_spec
from nncompiler.sparse import Operand, lower_sparse, tables_of
from nncompiler.stored import has_buffer


@dataclass(frozen=True)
class Names:
    """Names of buffers: where a node is read from, and all places that it must be written to.

    `strides` has those of buffers whose elements do not stand in row-major order without gaps.
    """

    read: Mapping[Node, str]
    write: Mapping[Node, tuple[str, ...]]
    strides: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def strides_of(self, buffer: str, node: Node) -> tuple[int, ...]:
        return self.strides.get(buffer, node.type.strides)

    def buffer(self, name: str, node: Node, *, written: bool = False) -> Buffer:
        """The memory from the first to the last element of a value, at least."""
        size = node.type.size
        if name in self.strides and node.shape:
            size = multiply([node.shape[0], self.strides[name][0]])
        return Buffer(name, node.dtype, size, written)


def lower(fusion: Fusion, names: Names, label: Callable[[Group], str]) -> tuple[Kernel, ...]:
    """One kernel per group, in the order of the groups."""
    return tuple(_Lowering(fusion, group, names).kernel(label(group)) for group in fusion.groups)


class _Lowering:
    def __init__(self, fusion: Fusion, group: Group, names: Names) -> None:
        self.fusion, self.group, self.names = fusion, group, names
        self.reductions: dict[Node, Reduction] = {}
        self.memo: dict[tuple[Node, Indices, tuple[Guard, ...]], Scalar | None] = {}
        self.nodes: dict[str, Node] = {}
        self.workspace: tuple[Buffer, ...] = ()

    def kernel(self, label: str) -> Kernel:
        group = self.group
        if group.kind == "sparse":
            return self._sparse_kernel(label)
        if group.kind == "scan":  # stands for the loop, which nncompiler/memory.py places
            return Kernel(label, "scan", (), (), (), (), ())
        reduce_axes = tuple(group.variables[a] for a in group.reduced)
        scatter = None
        back: tuple[Write, ...] = ()
        for node in group.nodes:
            match node.op.lowering:
                case Lowering.REDUCE:
                    self._reduce(node)
                case Lowering.CONTRACT:
                    reduce_axes = self._contract(node)
                case Lowering.SCATTER:
                    scatter = self._scatter(node)
                    if READS_BACK in node.op.flags:
                        back = (self._read_back(node, scatter),)
        writes = (*back, *(w for node in group.nodes for w in self._writes(node)))
        reductions = tuple(self.reductions.values())
        axes = group.variables if scatter else group.row_variables
        axes = tuple(v for v in axes if v.extent != 1)
        reduce_axes = tuple(v for v in reduce_axes if v.extent != 1)
        recipe = "rows" if group.kind == "map" else group.kind
        buffers = self._buffers(reductions, writes, scatter)
        described = tuple(self._describe(n) for n in group.nodes)
        return Kernel(
            label,
            recipe,
            axes,
            reduce_axes,
            reductions,
            writes,
            buffers,
            scatter,
            nodes=described,
            workspace=self.workspace,
        )

    def _describe(self, node: Node) -> str:
        name = self.fusion.graph.names.get(node)
        return f"{name} = {node.op.name}" if name else node.op.name

    # ------------------------------------------------------------ the value of a node

    def resolve(self, node: Node, indices: Indices, guards: tuple[Guard, ...]) -> Scalar | None:
        key = (node, indices, guards)
        if key not in self.memo:
            self.memo[key] = self._resolve(node, indices, guards)
        return self.memo[key]

    def _resolve(self, node: Node, indices: Indices, guards: tuple[Guard, ...]) -> Scalar | None:
        if node in self.fusion.inline:
            return self._computed(node, indices, guards)
        if node in self.reductions:
            return scalar.ref(self.reductions[node].name, node.dtype)
        if self.fusion.owner.get(node) is self.group and node.op.lowering is not Lowering.SCATTER:
            return self._computed(node, indices, guards)
        return self._load(node, indices, guards)

    def _computed(self, node: Node, indices: Indices, guards: tuple[Guard, ...]) -> Scalar | None:
        """A map from its memoised operands; None for what `element` looks inside of itself."""
        if node.op.lowering is Lowering.MAP:
            args = [element(i, indices, self.resolve, guards) for i in node.inputs]
            return scalar.apply(node.op.name, args, node.dtype)
        return None

    def _load(self, node: Node, indices: Indices, guards: tuple[Guard, ...]) -> Scalar:
        name = self.names.read[node]
        self.nodes[name] = node
        offset = flatten(indices, self.names.strides_of(name, node))
        moving = set(offset.variables)  # a place that is the same all over is there all over
        needed = tuple(g for g in guards if moving.intersection(g.value.variables))
        return scalar.load(name, offset, node.dtype, guards=needed)

    # ------------------------------------------------------------ anchors

    def _reduce(self, node: Node) -> None:
        value = element(node.inputs[0], point(self.group.variables), self.resolve)
        assert node.op.combine is not None
        name = f"{node.op.name}{len(self.reductions)}"
        self.reductions[node] = Reduction(name, node.op.combine, value)

    def _contract(self, node: Node) -> tuple[Var, ...]:
        letters = contract_variables(node)
        left, right, out = split_spec(node.attrs["spec"])
        factors = [
            element(operand, point(letters[c] for c in spec), self.resolve)
            for operand, spec in zip(node.inputs, (left, right), strict=True)
        ]
        product = scalar.apply("mul", factors, node.dtype)
        self.reductions[node] = Reduction("acc", "sum", product)
        return tuple(letters[c] for c in dict.fromkeys(left + right) if c not in out)

    def _scatter(self, node: Node) -> Scatter:
        *bases, updates, rows = node.inputs
        position = self.group.position(updates.shape)
        assert position is not None
        value = element(updates, position, self.resolve)
        row = element(rows, position[: rows.ndim], self.resolve)
        (target,) = self.names.write[node]
        self.nodes[target] = node
        lengths = updates.type.strides[rows.ndim :]
        offset = flatten(position, (0,) * rows.ndim + lengths)
        stride = multiply(updates.shape[rows.ndim :])
        assert isinstance(stride, int), "a symbolic extent leads"
        combine = node.op.combine or "sum"
        base = ""
        if READS_BACK in node.op.flags:  # only rows that were stored are read: they need no start
            target = base = f"{target}.table"
            size = multiply([node.attrs["size"], stride])
            self.workspace = (Buffer(target, node.dtype, size, True),)
        for start in bases:
            base = self.names.read[start]
            self.nodes.setdefault(base, start)
        return Scatter(target, offset, row, stride, value, base, combine)

    def _read_back(self, node: Node, scatter: Scatter) -> Write:
        """What the table holds in the end at the same index; the own value where it has none."""
        size = node.attrs["size"]
        row, (target,) = scatter.row, self.names.write[node]
        limit = scalar.extent(size, row.dtype)
        inside = scalar.apply("lt", [row, limit], boolean)
        if row.dtype.kind == "int":
            zero = scalar.const(0, row.dtype)
            above = scalar.apply("le", [zero, row], boolean)
            inside = scalar.apply("and", [above, inside], boolean)
            row = scalar.apply("where", [inside, row, zero], row.dtype)
        found = scalar.load(
            scatter.buffer, scatter.index, node.dtype, indirect=[(row, scatter.stride)]
        )
        value = scalar.apply("where", [inside, found, scatter.value], node.dtype)
        position = self.group.position(node.shape)
        assert position is not None
        offset = flatten(position, self.names.strides_of(target, node))
        return Write(target, offset, value, False)

    def _sparse_kernel(self, label: str) -> Kernel:
        (node,) = self.group.nodes

        def read(operand: Node, axes: tuple[Var, ...]) -> Scalar:
            return element(operand, point(axes), self.resolve)

        tables = tables_of(node)
        names = [self.names.read[t] for t in tables]
        outputs = self.names.write[node]
        self.nodes |= dict(zip(names, tables, strict=True)) | dict.fromkeys(outputs, node)
        stmt = lower_sparse(node, Operand(read, tuple(names), outputs))
        loads = [s.name for s in scalar.walk(scalars(stmt)) if s.kind == "load"]
        buffers = tuple(
            self.names.buffer(n, self.nodes[n], written=n in outputs)
            for n in dict.fromkeys((*loads, *names, *outputs))
        )
        described = (self._describe(node),)
        return Kernel(label, "sparse", (), (), (), (), buffers, sparse=stmt, nodes=described)

    # ------------------------------------------------------------ results

    def _writes(self, node: Node) -> list[Write]:
        if node.op.lowering is Lowering.SCATTER:
            return []
        position = self.group.position(node.shape)
        places = [position] if position is not None else element_places(node)
        assert places is not None
        rows = set(self.group.row_variables)
        found = []
        for target in self.names.write.get(node, ()):
            self.nodes[target] = node
            for place in places:
                inner = any(v not in rows for i in place for v in i.variables)
                offset = flatten(place, self.names.strides_of(target, node))
                found.append(Write(target, offset, element(node, place, self.resolve), inner))
        return found

    def _buffers(
        self,
        reductions: tuple[Reduction, ...],
        writes: tuple[Write, ...],
        scatter: Scatter | None,
    ) -> tuple[Buffer, ...]:
        values = [*(r.value for r in reductions), *(w.value for w in writes)]
        written = {w.buffer for w in writes}
        if scatter:
            values += [scatter.row, scatter.value]
            written.add(scatter.buffer)
        own = {b.name for b in self.workspace}
        used = dict.fromkeys(s.name for s in scalar.walk(values) if s.kind == "load")
        used.update(dict.fromkeys(w.buffer for w in writes))
        if scatter:
            used.update(dict.fromkeys(b for b in (scatter.base, scatter.buffer) if b))
        return tuple(
            self.names.buffer(n, self.nodes[n], written=n in written) for n in used if n not in own
        )


def needs_memory(node: Node, fusion: Fusion) -> bool:
    """Does a member of a group have to be written, because another group, an output or a later pass
    reads it?"""
    if has_buffer(node):
        return False
    group = fusion.owner[node]
    if node in fusion.again or node in fusion.graph.outputs.values():
        return True
    stack = list(fusion.graph.users[node])
    while stack:
        user = stack.pop()
        if user in fusion.inline:
            stack.extend(fusion.graph.users[user])
        elif fusion.owner[user] is not group or user.op.lowering is Lowering.SCATTER:
            return True
    return False
