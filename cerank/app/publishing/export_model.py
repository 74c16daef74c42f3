"""Write the re-ranker of a run for another library: files, checked scores, and a model card."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.app.named_models import NamedModel, check_measured, trained_model
from cerank.app.publishing import model_card
from cerank.app.publishing.quantized_verdict import QuantizedResult, calibration_pairs, judge_quantized
from cerank.app.run_texts import some_texts
from cerank.errors import MissingError, UsageError
from cerank.exporting.export_formats import CALIBRATED, FORMATS, QUANTIZED, ExportFormat
from cerank.files import disk
from cerank.machine.devices import physical_cores
from cerank.registry import nearest
from cerank.runs import run_store
from cerank.settings import Settings

if TYPE_CHECKING:
    from cerank.exporting.score_elsewhere import ExportCheck

CHECKED_PAIRS = 100
_DEPTH = 10  # candidates of a query from which the checked pairs are taken
_ODD_PAIRS = (  # what goes wrong first: nothing, other scripts, no words, a text that must be cut
    ("what is a cross-encoder", ""),
    ("what is a cross-encoder", "It reads query and document together. " * 400),
    ("naïve café 😀", "日本語 \u200d naïve cafés 12345"),
    ("?", "\n\n"),
)


class ExportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A trained re-ranker, the format to write it in, and where."""

    run: str  # a run (its last stage) or RUN:STAGE
    form: str
    license: str = ""  # of the exported model, as the hub abbreviates it; "" takes the base's where it is known
    queries: int = 200  # test queries on which an 8-bit model is measured


class ExportResult(msgspec.Struct, frozen=True, kw_only=True):
    """The folder that was written, and the check of its scores."""

    folder: Path
    files: tuple[tuple[str, int], ...]  # name and bytes
    check: ExportCheck
    quantized: QuantizedResult | None = None


def check_format(form: str) -> ExportFormat:
    """Return the format of that name.

    Raises:
        UsageError: there is none, or none that keeps the scores.
    """
    if form in {"onnx-int4", "int4", "onnx-q4", "openvino-int4"}:
        what = "4-bit weights are not written: a cross-encoder has few weights per layer to share a scale, and no "
        what += "library computes its products in 4 bits on a CPU, so that it gets worse and not faster"
        raise UsageError(
            what, where="--as", hint="8 bits are measured before they are recommended: --as onnx-int8", code="no-int4"
        )
    formats: dict[str, ExportFormat] = {known: known for known in FORMATS}
    if form not in formats:
        raise UsageError(
            f"no export format is called '{form}'", where="--as", hint=nearest(form, FORMATS), code="unknown-format"
        )
    return formats[form]


def export(settings: Settings, request: ExportRequest, folder: Path, progress: Callable[[str], None]) -> ExportResult:
    """Write the model into a new folder, whole or not at all.

    Args:
        settings: where the lab and caches are.
        request: what to write.
        folder: where; it must not exist.
        progress: called with what is done next.

    Raises:
        UsageError: the format cannot hold this model, or the folder exists.
        MissingError: the run is not finished, or its test dataset is not on this machine.
        RunFailedError: the library that the model is for gives other scores; nothing is kept.
    """
    form = check_format(request.form)
    target = folder.expanduser().absolute()
    if target.exists():
        hint = "name a folder that does not exist"
        raise UsageError("the folder exists already", where=str(folder), hint=hint, code="folder-exists")
    model = trained_model(settings.lab, request.run)
    check_measured(model, request.run)
    pairs = _pairs(settings, model)
    return _written(settings, request, target, _Work(model, form, pairs, progress))


class _Work(msgspec.Struct, frozen=True):
    model: NamedModel
    form: ExportFormat
    pairs: Sequence[tuple[str, str]]
    progress: Callable[[str], None]


def _pairs(settings: Settings, model: NamedModel) -> list[tuple[str, str]]:
    """Return the pairs on which scores are compared: of the run's test queries, and some odd ones."""
    if model.run is None:
        raise MissingError("the folder is not a run", where=str(model.folder))
    texts = some_texts(settings, model.run.folder, model.run.plan, CHECKED_PAIRS, _DEPTH)
    pairs = [pair for query in texts for pair in query.pairs]
    count = min(CHECKED_PAIRS - len(_ODD_PAIRS), len(pairs))
    return [*(pairs[place * len(pairs) // count] for place in range(count)), *_ODD_PAIRS]


def _written(settings: Settings, request: ExportRequest, target: Path, work: _Work) -> ExportResult:
    from cerank.exporting import score_elsewhere, write_format
    from cerank.kernels.determinism import make_deterministic
    from cerank.models.load_model import load_reranker

    make_deterministic("cpu", settings.threads or physical_cores())
    where = request.run
    reranker = load_reranker(work.model.folder, work.model.hub_id, work.model.declared)
    write_format.check_expressible(reranker.model, work.form, where)
    quantized = None
    with disk.new_folder(target) as folder:
        work.progress(f"writing {work.form}")
        calibration: tuple[tuple[str, str], ...] = ()
        if work.form in CALIBRATED and work.model.run is not None:
            calibration = tuple(calibration_pairs(settings, work.model.run))
        write_format.write(reranker, folder, work.form, where, calibration)
        work.progress(f"comparing scores on {len(work.pairs)} pairs")
        check = score_elsewhere.check_scores(folder, work.form, reranker, work.pairs)
        if work.form in QUANTIZED and work.model.run is not None:
            work.progress("measuring speed and ranking quality beside float32")
            with tempfile.TemporaryDirectory() as plain:
                write_format.write(reranker, Path(plain), QUANTIZED[work.form], where)
                quantized = judge_quantized(
                    settings,
                    work.model.run,
                    folder,
                    Path(plain),
                    form=work.form,
                    queries=request.queries,
                    prompt=reranker.model.query_prompt,
                )
        card = model_card.text(
            work.model,
            model_card.Exported(
                form=work.form,
                pooling=reranker.model.pooling,
                max_length=reranker.limits.max_length,
                check=check,
                quantized=quantized,
                license=request.license,
                label=reranker.model.label,
                query_prompt=reranker.model.query_prompt,
            ),
        )
        run_store.check_no_token(card, "the model card", "check the recipe and the names of its data")
        disk.write(folder / "README.md", card.encode())
    files = tuple((path.relative_to(target).as_posix(), path.stat().st_size) for path in disk.list_content(target)[0])
    return ExportResult(folder=target, files=files, check=check, quantized=quantized)
