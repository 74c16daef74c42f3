"""What a comparison says of runs that did not repeat themselves after a resume."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank.app.checks.verify_run import warnings_about
from cerank.runs import run_store
from tests.tui.labs import LabFolder


@pytest.mark.parametrize("kind", ["replay mismatch", "environment changed"])
def test_a_run_that_went_on_otherwise_is_told_of_in_its_comparisons(kind: str, tmp_path: Path) -> None:
    folder = LabFolder(tmp_path)
    calm, marked = (folder.finished(folder.started(folder.run(label), 3)) for label in ("calm", "marked"))
    assert warnings_about(tmp_path, [calm.name, marked.name]) == []
    folder.event(marked, kind, "step 3 gave another loss")
    (told,) = warnings_about(tmp_path, [calm.name, marked.name])
    assert told.startswith(f"{run_store.title(marked)}: ")
