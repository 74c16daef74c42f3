"""A run's rankings, as others get them: the run's own rows, below a header that tells only what was recorded."""

from __future__ import annotations

import gzip
import shutil

import msgspec
import pytest
import yaml

from cerank.app.publishing.export_rankings import export_rankings
from cerank.errors import CerankError, UsageError
from cerank.exporting.run_metadata import MetadataRequest
from cerank.files import json_records
from cerank.runs.layout import RunFolder
from cerank.runs.records import Attempt
from cerank.trec.text_io import read_run
from tests.refusals import refused

TOLD = MetadataRequest(command=("cerank", "export"), actor="Ada", goal="a test")


def told(name: str) -> None:
    """Take the names of files that are written."""


def test_the_rows_are_those_of_the_run_and_the_header_tells_how_it_was_trained_and_scored(trained, tmp_path):
    written = export_rankings(trained.settings, "brisk-otter", tmp_path / "out", TOLD, told)
    tests, firsts = trained.plan.recipe.data.test, trained.plan.recipe.data.first_stages
    assert len(written.files) == len(tests) * len(firsts) * 2
    plain = export_rankings(trained.settings, "brisk-otter:distill", tmp_path / "plain", None, told)
    assert len(plain.files) * 2 == len(written.files)
    own = trained.folder.ranking("distill", tests[0], firsts[0])
    name = next(name for name, _ in plain.files if (tmp_path / "out" / name).exists())
    assert gzip.decompress((tmp_path / "plain" / name).read_bytes()) == gzip.decompress(own.read_bytes())
    text = gzip.decompress((tmp_path / "out" / name).read_bytes()).decode()
    head, _, rows = text.partition("# ir_metadata.end\n")
    assert rows.encode() == gzip.decompress(own.read_bytes())
    assert read_run(tmp_path / "out" / name).ranking == read_run(own).ranking
    values = yaml.safe_load("\n".join(line.removeprefix("# ") for line in head.splitlines()[1:]))
    reranker = values["method"]["retrieval"][1]
    assert reranker["method"] == f"{trained.folder.name}:distill"
    assert reranker["precision"] == "fp32"
    assert reranker["training"]["stages"] == ["contrastive", "distill"]
    assert reranker["training"]["plan sha256"] == trained.plan.fingerprint
    attempt = json_records.load(trained.folder.attempt(1), Attempt)
    assert values["platform"]["hardware"]["cpu"]["model"] == attempt.cpu
    assert set(values["platform"]["hardware"]) == {"cpu"}, "what was not recorded is left out"
    assert len(firsts) > 1
    assert "resources" not in values, "candidates of several first stages were scored together"


def test_a_folder_that_exists_an_unknown_stage_and_a_changed_ranking_are_refused(trained, tmp_path):
    with refused(UsageError, "folder-exists"):
        export_rankings(trained.settings, "brisk-otter", tmp_path, None, told)
    with refused(UsageError, "unknown-stage", "distil"):
        export_rankings(trained.settings, "brisk-otter:distil", tmp_path / "out", None, told)
    with refused(UsageError, "folder-missing"):
        export_rankings(trained.settings, "brisk-otter", tmp_path / "no" / "out", None, told)
    with refused(UsageError, "text-not-plain", "--goal"):
        given = MetadataRequest(command=(), goal="a\nb")
        export_rankings(trained.settings, "brisk-otter", tmp_path / "out", given, told)
    folder = RunFolder(shutil.copytree(trained.folder.path, tmp_path / "lab" / "runs" / trained.folder.name))
    data = trained.plan.recipe.data
    changed = folder.ranking("distill", data.test[0], data.first_stages[0])
    changed.write_bytes(changed.read_bytes() + b" ")
    settings = msgspec.structs.replace(trained.settings, lab=tmp_path / "lab")
    with pytest.raises(CerankError) as caught:
        export_rankings(settings, "brisk-otter", tmp_path / "out", TOLD, told)
    assert str(changed) in caught.value.where
    assert not (tmp_path / "out").exists()
