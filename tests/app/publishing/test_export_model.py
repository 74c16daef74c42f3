"""What is exported is loaded by the library it is for, and scores there as it was measured here."""

from __future__ import annotations

from pathlib import Path

import pytest

from cerank.app.named_models import trained_model
from cerank.app.publishing.export_model import ExportRequest, export
from cerank.app.publishing.quantized_verdict import calibration_pairs
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import MissingError, RunFailedError, UsageError
from cerank.exporting import score_elsewhere
from cerank.exporting.export_formats import LIBRARIES
from cerank.inference.rerank import Scorer
from tests.refusals import refused
from tests.trained_run import TrainedRun

PAIRS = [("alpha beta", "alpha gamma beta"), ("kappa", ""), ("iota mu", "nu " * 60), ("zeta", "eta theta zeta")]


def quiet(_text: str) -> None:
    """Nobody listens."""


def card_of(folder: Path) -> tuple[dict, str]:
    """The card's metadata, as the hub reads them, and its text."""
    from huggingface_hub import ModelCard

    card = ModelCard((folder / "README.md").read_text(encoding="utf8"))
    return card.data.to_dict(), card.text


def test_sentence_transformers_scores_what_was_measured(trained: TrainedRun, tmp_path: Path) -> None:
    cross_encoders = pytest.importorskip("sentence_transformers")
    result = export(
        trained.settings, ExportRequest(run="brisk-otter", form="sentence-transformers"), tmp_path / "m", quiet
    )
    assert result.check.pairs == 100
    assert result.check.largest < 1e-5
    model = cross_encoders.CrossEncoder(str(tmp_path / "m"), device="cpu", local_files_only=True)
    own = Scorer.load(trained.folder.final(1, "distill")).score(PAIRS)
    assert model.predict(PAIRS).tolist() == pytest.approx(own, abs=1e-5)


def test_the_card_says_where_the_model_comes_from_and_what_its_verdicts_rest_on(
    trained: TrainedRun, tmp_path: Path
) -> None:
    request = ExportRequest(run="brisk-otter:contrastive", form="sentence-transformers", license="mit")
    pytest.importorskip("sentence_transformers")
    export(trained.settings, request, tmp_path / "m", quiet)
    data, text = card_of(tmp_path / "m")
    assert data["license"] == "mit"
    assert data["pipeline_tag"] == "text-ranking"
    results = data["model-index"][0]["results"]
    assert {metric["name"] for row in results for metric in row["metrics"]} == set(
        trained.plan.recipe.evaluate.measures
    )
    for part in ("contrastive against first-stage", "| first-stage |", "seed 42", "CrossEncoder", "cerank.load", "mit"):
        assert part in text, part
    assert str(trained.plan.input("dataset", trained.plan.recipe.data.test[0]).sha256[:12]) in text


def test_onnx_holds_pooling_and_head(trained: TrainedRun, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    export(trained.settings, ExportRequest(run="brisk-otter", form="onnx"), tmp_path / "m", quiet)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    session = runtime.InferenceSession(str(tmp_path / "m" / "onnx" / "model.onnx"))
    queries, passages = zip(*PAIRS, strict=True)
    batch = tokenizer(list(queries), list(passages), padding=True, truncation=True, return_tensors="np")
    inputs = {entry.name: batch[entry.name].astype("int64") for entry in session.get_inputs()}
    scores = session.run(None, inputs)[0][:, 0]
    own = Scorer.load(trained.folder.final(1, "distill")).score(PAIRS)
    assert scores.tolist() == pytest.approx(own, abs=1e-5)
    assert "onnxruntime" in card_of(tmp_path / "m")[1]


@pytest.mark.parametrize(
    ("form", "file"),
    [
        ("onnx-int8", "onnx/model_quint8.onnx"),
        ("onnx-int8-static", "onnx/model_static_quint8.onnx"),
        pytest.param("openvino-int8", "openvino/openvino_model_qint8_quantized.xml", marks=pytest.mark.slow),
    ],
)
def test_8_bits_are_timed_and_judged_before_they_are_recommended(
    trained: TrainedRun, tmp_path: Path, form: str, file: str
) -> None:
    for library in LIBRARIES[form]:
        pytest.importorskip(library)
    request = ExportRequest(run="brisk-otter", form=form, queries=10)
    result = export(trained.settings, request, tmp_path / "m", quiet)
    judged = result.quantized
    assert judged is not None
    assert judged.queries == 10
    assert set(judged.verdicts) == set(trained.plan.recipe.evaluate.measures)
    assert judged.comparison.rows[0].paired.n == 10
    assert judged.speed.reference > 0
    assert judged.sentences[-1] in card_of(tmp_path / "m")[1].replace("\\", "")
    assert [name for name, _ in result.files if name.endswith((".onnx", ".xml"))] == [file]
    assert result.check.largest < 0.2, "8 bits are an approximation of the same model"


def test_openvino_holds_pooling_and_head(trained: TrainedRun, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    openvino = pytest.importorskip("openvino")
    result = export(trained.settings, ExportRequest(run="brisk-otter", form="openvino"), tmp_path / "m", quiet)
    assert result.check.library == "openvino"
    assert result.check.largest < 1e-5
    model = openvino.Core().read_model(str(tmp_path / "m" / "openvino" / "openvino_model.xml"))
    assert len(model.inputs) >= 2
    assert "compile_model" in card_of(tmp_path / "m")[1]


def test_ranges_are_measured_on_validation_and_never_on_test_queries(trained: TrainedRun) -> None:
    run = trained_model(trained.settings.lab, "brisk-otter").run
    pairs = calibration_pairs(trained.settings, run)
    dataset = open_dataset(trained.plan.recipe.data.validation, trained.settings.cache)
    assert {query for query, _ in pairs} <= set(dataset.queries.values())
    assert len(pairs) == 2 * len([query for query in dataset.queries if dataset.qrels.get(query)])


def test_a_library_that_is_missing_is_named_with_its_extra(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cerank.exporting.write_format.find_spec", lambda _name: None)
    with refused(UsageError, "library-missing", "onnx", "cerank[openvino]"):
        export(trained.settings, ExportRequest(run="brisk-otter", form="openvino"), tmp_path / "m", quiet)


def test_scores_that_differ_leave_nothing_behind(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(*_: object) -> tuple[str, object]:
        return "other", lambda pairs: [0.5 + number for number, _ in enumerate(pairs)]

    monkeypatch.setattr(score_elsewhere, "library_scorer", other)
    request = ExportRequest(run="brisk-otter", form="sentence-transformers")
    with refused(RunFailedError, "scores-differ"):
        export(trained.settings, request, tmp_path / "m", quiet)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("run", "form", "kind", "code"),
    [
        ("brisk-otter", "transformers", UsageError, "format-cannot-hold"),
        ("brisk-otter", "onnx-int4", UsageError, "no-int4"),
        ("brisk-otter", "openvino-int4", UsageError, "no-int4"),
        ("brisk-otter", "gguf", UsageError, "unknown-format"),
        ("brisk-oter", "onnx", UsageError, "run-not-found"),
        ("brisk-otter:distil", "onnx", UsageError, "usage"),
    ],
)
def test_what_cannot_be_exported_is_refused(trained: TrainedRun, tmp_path: Path, run, form, kind, code) -> None:
    with refused(kind, code):
        export(trained.settings, ExportRequest(run=run, form=form), tmp_path / "m", quiet)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_kept(trained: TrainedRun, tmp_path: Path) -> None:
    with refused(UsageError, "folder-exists", str(tmp_path)):
        export(trained.settings, ExportRequest(run="brisk-otter", form="onnx"), tmp_path, quiet)


def test_without_its_dataset_a_run_cannot_be_checked(trained: TrainedRun, tmp_path: Path) -> None:
    data = Path(trained.plan.recipe.data.test[0].partition("[")[0])
    data.rename(data.with_name("elsewhere"))
    try:
        with pytest.raises((MissingError, UsageError)):
            export(trained.settings, ExportRequest(run="brisk-otter", form="onnx"), tmp_path / "m", quiet)
    finally:
        data.with_name("elsewhere").rename(data)
