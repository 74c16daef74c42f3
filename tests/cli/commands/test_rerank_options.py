"""The options of `cerank rerank` that are refused before anything is loaded."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from cerank.cli.commands.rankings.rerank_command import rerank
from cerank.cli.typer_app import app
from cerank.errors import CerankError, ExitCode, UsageError


def asked(tmp_path, precision):
    rerank(str(tmp_path), "bm25", str(tmp_path / "none"), tmp_path / "out.run", precision=precision, lab=str(tmp_path))


def test_an_unknown_precision_is_refused_with_those_there_are(tmp_path):
    words = ["rerank", "model", "--first-stage", "bm25", "--dataset", "x", "-o", str(tmp_path / "out.run")]
    done = CliRunner().invoke(app, [*words, "--precision", "int8"])
    assert done.exit_code == ExitCode.USAGE
    assert all(name in done.output for name in ("--precision", "fp32", "bf16", "auto"))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
def test_each_precision_of_recipes_is_taken(tmp_path, precision):
    with pytest.raises(CerankError) as caught:  # of the dataset, which comes after
        asked(tmp_path, precision)
    assert "no precision" not in str(caught.value)


@pytest.mark.parametrize(("option", "value"), [("mteb_subset", "en"), ("mteb_split", "dev"), ("mteb_task", "NFCorpus")])
def test_what_belongs_to_mteb_is_refused_without_the_rest_of_it(tmp_path, option, value):
    with pytest.raises(UsageError) as caught:
        rerank(str(tmp_path), "bm25", "x", tmp_path / "out.run", lab=str(tmp_path), **{option: value})
    assert caught.value.where.startswith("--mteb-")
