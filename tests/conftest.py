"""Shared by all tests: a cache of their own, and hypothesis without deadlines or randomness."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

EXAMPLES = int(os.environ.get("NNC_EXAMPLES", 25))  # of every test by hypothesis

settings.register_profile("project", deadline=None, derandomize=True, max_examples=EXAMPLES)
settings.register_profile("search", deadline=None, max_examples=1000)  # HYPOTHESIS_PROFILE=search
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "project"))


@pytest.fixture(autouse=True, scope="session")
def _own_cache() -> Iterator[None]:
    """Compiled objects of the tests go to an empty folder, never to the user's cache."""
    before = os.environ.get("NNC_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NNC_CACHE_DIR"] = folder
        yield
    if before is None:
        del os.environ["NNC_CACHE_DIR"]
    else:
        os.environ["NNC_CACHE_DIR"] = before
