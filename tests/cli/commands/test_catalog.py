"""What `cerank datasets` says of one dataset."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from cerank.cli.typer_app import app
from tests.worker.small import write_dataset


def test_a_dataset_without_judgments_is_described_with_a_warning(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set", queries=4)
    words = ["datasets", str(folder), "--cache", str(tmp_path / "cache")]
    assert "no relevance judgments" not in CliRunner().invoke(app, words).stderr
    (Path(folder) / "qrels").write_text("")
    described = CliRunner().invoke(app, words)
    assert described.exit_code == 0, described.output
    assert "no relevance judgments" in described.stderr
