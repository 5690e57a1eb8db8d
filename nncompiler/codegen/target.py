"""Takes a processor's name and features, gives what code generation must know about it."""

from __future__ import annotations

import platform
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from ir.types import DType

LINE = 64  # bytes of a line of a cache; every buffer of a program begins at a multiple of it


@dataclass(frozen=True, slots=True)
class Target:
    """Facts about one kind of processor; recipes read these, never the host.

    vector_bits, registers    width and number of vector registers
    l1, l2, l3                bytes of data cache that one core can count on
    """

    name: str
    triple: str
    cpu: str
    features: str
    vector_bits: int
    registers: int
    has_fma: bool
    l1: int = 32 << 10
    l2: int = 512 << 10
    l3: int = 8 << 20

    def lanes(self, dtype: DType) -> int:
        """How many values fill one vector register; bools are as wide as f32 in registers."""
        return self.vector_bits // (32 if dtype.kind == "bool" else dtype.bits)

    @property
    def is_x86(self) -> bool:
        return self.triple.startswith("x86_64")

    @property
    def has_masks(self) -> bool:
        """Whether masked loads, stores and selects cost one instruction."""
        return self.vector_bits >= 512


_LINUX = "x86_64-unknown-linux-gnu"
_AVX2 = "+sse4.2,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe"
_AVX512 = _AVX2 + ",+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl"

PRESETS = {
    "avx512": Target(
        "avx512", _LINUX, "x86-64-v4", _AVX512 + ",-prefer-256-bit", 512, 32, True, l2=1 << 20
    ),
    "avx2": Target("avx2", _LINUX, "x86-64-v3", _AVX2, 256, 16, True),
    "sse": Target("sse", _LINUX, "x86-64-v2", "+sse4.2,+popcnt", 128, 16, False),
    "neon": Target("neon", "aarch64-unknown-linux-gnu", "generic", "+neon", 128, 32, True),
}


def preset(name: str) -> Target:
    """A Target by name: avx512, avx2, sse or neon."""
    if name not in PRESETS:
        raise ValueError(f"no target is called '{name}'; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def describe(triple: str, guess: str, present: Collection[str]) -> Target:
    """This machine, from what LLVM tells of it: triple, CPU name and features."""
    base = replace(PRESETS[_family(triple, present)], triple=triple)
    features = ",".join(f"+{name}" for name in sorted(present) if name != "64bit")
    if base.vector_bits == 512:
        features += ",-prefer-256-bit"
    if not base.is_x86:
        base = replace(base, has_fma=True, features=features)
    caches = _caches()
    return replace(
        base,
        cpu=choose_cpu(guess, present, base),
        features=features,
        l1=caches.get(1, base.l1),
        l2=caches.get(2, base.l2),
        l3=caches.get(3, base.l3),
    )


def _family(triple: str, present: Collection[str]) -> str:
    """The preset whose vectors the machine has."""
    if not triple.startswith(("x86_64", "amd64")):
        return "neon"
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl", "fma"} <= set(present):
        return "avx512"
    return "avx2" if {"avx2", "fma"} <= set(present) else "sse"


# Newest first: a feature that only this CPU and its successors have, and the name LLVM knows.
_INTEL = (
    ("amx-fp16", "graniterapids"),
    ("amx-tile", "sapphirerapids"),
    ("avx512vp2intersect", "tigerlake"),
    ("avx512vbmi2", "icelake-server"),
    ("avx512bf16", "cooperlake"),
    ("avx512vnni", "cascadelake"),
    ("avx512bw", "skylake-avx512"),
    ("avxvnni", "alderlake"),
    ("avx2", "haswell"),
)
_AMD = (
    ("avx512vp2intersect", "znver5"),
    ("avx512f", "znver4"),
    ("vaes", "znver3"),
    ("clwb", "znver2"),
    ("avx2", "znver1"),
)


def choose_cpu(guess: str, present: Collection[str], base: Target) -> str:
    """A CPU name from feature bits: LLVM's guess may be too old, and its scheduling model then
    spills register tiles. The features themselves are given beside the name."""
    if not base.is_x86:
        return guess or base.cpu
    table = _AMD if "sse4a" in present else _INTEL
    return next((name for feature, name in table if feature in present), base.cpu)


def _caches() -> dict[int, int]:
    """Bytes of data or unified cache per level, as far as the system tells."""
    sizes: dict[int, int] = {}
    root = Path("/sys/devices/system/cpu/cpu0/cache")
    for folder in sorted(root.glob("index*")) if platform.system() == "Linux" else ():
        try:
            if (folder / "type").read_text().strip() == "Instruction":
                continue
            level = int((folder / "level").read_text())
            sizes[level] = _bytes((folder / "size").read_text().strip())
        except (OSError, ValueError):
            continue
    return sizes


def _bytes(text: str) -> int:
    units = {"K": 10, "M": 20, "G": 30}
    return int(text[:-1]) << units[text[-1]] if text[-1] in units else int(text)
