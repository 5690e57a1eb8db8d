"""Takes artifacts by digest, gives them back in a later process; never needed, fails silently.

The files lie in NNC_CACHE_DIR, else ~/.cache/nncompiler (an empty NNC_CACHE_DIR turns the cache
off). They hold machine code, so a folder or file that another user owns or may write is not read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import time
from pathlib import Path

from runtime.artifact import Artifact

LIMIT = 256 << 20  # bytes
_SUFFIX = ".nncart"
_DIGEST = re.compile(r"[0-9a-f]{16,128}")
_STALE = 3600.0  # seconds after which a temporary file belongs to nobody


def default_folder() -> Path | None:
    """Where the cache lies; None where it is turned off or there is no home."""
    chosen = os.environ.get("NNC_CACHE_DIR")
    if chosen is not None:
        return Path(chosen) if chosen else None
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "nncompiler"
    except RuntimeError:
        return None


class Cache:
    """Artifacts on disk, at most `limit` bytes; the ones not used for longest go first."""

    def __init__(self, folder: str | os.PathLike[str] | None = None, limit: int = LIMIT) -> None:
        self.folder = Path(folder) if folder is not None else default_folder()
        self.limit = limit

    def get(self, digest: str) -> Artifact | None:
        """The artifact stored under a hex digest, or None; damaged files are removed."""
        if self.folder is None or not _DIGEST.fullmatch(digest) or not _private(self.folder):
            return None
        path = self.folder / (digest + _SUFFIX)
        try:
            data = _read(path)
        except OSError:
            return None
        if data is None:
            return None
        try:
            if hashlib.sha256(data[32:]).digest() != data[:32]:
                raise ValueError("damaged")
            artifact = Artifact.from_bytes(data[32:])
        except ValueError:
            _remove(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return artifact

    def put(self, digest: str, artifact: Artifact) -> bool:
        """Stores the artifact; False where that was not possible."""
        import tempfile  # not needed to read

        if self.folder is None or not _DIGEST.fullmatch(digest):
            return False
        payload = artifact.to_bytes()
        if len(payload) > self.limit:
            return False
        temporary = None
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _private(self.folder):
                return False
            handle, temporary = tempfile.mkstemp(suffix=".tmp", dir=self.folder)  # mode 0600
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(payload).digest())
                file.write(payload)
            os.replace(temporary, self.folder / (digest + _SUFFIX))
        except OSError:
            if temporary is not None:
                _remove(Path(temporary))
            return False
        self._shrink()
        return True

    def clear(self) -> None:
        """Removes all artifacts."""
        for _, _, path in self._files():
            _remove(path)

    def _files(self) -> list[tuple[float, int, Path]]:
        files = []
        with contextlib.suppress(OSError):
            for entry in os.scandir(self.folder or "."):
                if not entry.name.endswith((_SUFFIX, ".tmp")):
                    continue
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    files.append((status.st_mtime, status.st_size, Path(entry.path)))
        return files

    def _shrink(self) -> None:
        total = 0
        for used, size, path in sorted(self._files(), reverse=True):
            if path.suffix == ".tmp":
                if time.time() - used > _STALE:
                    _remove(path)
                continue
            total += size
            if total > self.limit:
                _remove(path)


def _private(folder: Path) -> bool:
    """Whether the folder is ours and nobody else may write in it."""
    try:
        return stat.S_ISDIR(folder.stat().st_mode) and _ours(folder.stat())
    except OSError:
        return False


def _ours(status: os.stat_result) -> bool:
    if not hasattr(os, "getuid"):  # Windows keeps a user's profile private by itself
        return True
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _read(path: Path) -> bytes | None:
    """The bytes of a regular file of ours; None where it is not one."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        return file.read() if stat.S_ISREG(status.st_mode) and _ours(status) else None


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
