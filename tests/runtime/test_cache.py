"""Takes a folder, gives the laws of the disk cache: it never fails and never gives damaged code."""

from __future__ import annotations

import os
import stat

import pytest

from runtime.artifact import Artifact, Plan
from runtime.cache import Cache, default_folder

DIGEST = "ab" * 32


def artifact(size=10):
    plan = Plan("p", [], [], [], {}, {}, [], [], [], "p", "host")
    return Artifact(plan, bytes(size))


def test_round_trip(tmp_path):
    cache = Cache(tmp_path / "a" / "b")
    assert cache.get(DIGEST) is None
    assert cache.put(DIGEST, artifact())
    assert cache.get(DIGEST) == artifact()
    assert stat.S_IMODE(os.stat(cache.folder).st_mode) == 0o700
    (file,) = cache.folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    cache.clear()
    assert cache.get(DIGEST) is None


@pytest.mark.parametrize("position", [0, 40, -1, None])
def test_damaged_files_are_removed(tmp_path, position):
    cache = Cache(tmp_path / "c")
    cache.put(DIGEST, artifact())
    (file,) = cache.folder.iterdir()
    data = bytearray(file.read_bytes())
    if position is None:
        data = data[:-3]
    else:
        data[position] ^= 1
    file.write_bytes(bytes(data))
    assert cache.get(DIGEST) is None
    assert not file.exists()


def test_least_recently_used_go_first(tmp_path):
    cache = Cache(tmp_path / "c", limit=4000)
    digests = [f"{i:02x}" * 32 for i in range(5)]
    for age, digest in enumerate(digests[:3]):
        cache.put(digest, artifact(1000))
        os.utime(cache.folder / f"{digest}.nncart", (age, age))
    assert cache.get(digests[0])  # used now
    cache.put(digests[3], artifact(1000))
    assert [cache.get(d) is not None for d in digests] == [True, False, True, True, False]
    assert not cache.put(digests[4], artifact(5000))


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX permissions")
def test_what_others_may_write_is_not_read(tmp_path):
    cache = Cache(tmp_path / "c")
    cache.put(DIGEST, artifact())
    (file,) = cache.folder.iterdir()
    file.chmod(0o666)
    assert cache.get(DIGEST) is None
    file.chmod(0o600)
    cache.folder.chmod(0o777)
    assert cache.get(DIGEST) is None
    assert not cache.put(DIGEST, artifact())
    cache.folder.chmod(0o700)
    assert cache.get(DIGEST) == artifact()
    target = file.rename(tmp_path / "elsewhere")
    file.symlink_to(target)
    assert cache.get(DIGEST) is None


@pytest.mark.parametrize("digest", ["", "../" + "a" * 32, "A" * 64, "ab"])
def test_only_digests_name_files(tmp_path, digest):
    cache = Cache(tmp_path / "c")
    assert not cache.put(digest, artifact())
    assert cache.get(digest) is None


def test_impossible_folders_fail_silently(tmp_path):
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file")
    assert not cache.put(DIGEST, artifact())
    assert cache.get(DIGEST) is None


def test_the_environment_chooses_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NNC_CACHE_DIR", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.setenv("NNC_CACHE_DIR", "")
    assert default_folder() is None
    assert not Cache().put(DIGEST, artifact())
    assert Cache().get(DIGEST) is None
