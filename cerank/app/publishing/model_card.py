"""The model card of an exported re-ranker: where it comes from, what was measured, how to use it, and what it cost.

Invariant: every number is the run's own; the home folder's name is not in it, nor any other path above the recipe's.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

import cerank
from cerank.app import reranked_passages
from cerank.app.comparison import run_answer, stage_costs
from cerank.app.named_models import NamedModel
from cerank.app.publishing.quantized_verdict import QuantizedResult
from cerank.errors import MissingError
from cerank.exporting.export_formats import GRAPH_FILES, ExportFormat
from cerank.files import json_records
from cerank.models.bases import BASES
from cerank.recipes.rendering import render
from cerank.runs import run_store
from cerank.runs.records import Attempt
from cerank.text import escapes
from cerank.text.safe_text import shown
from cerank.text.table_data import written

if TYPE_CHECKING:
    from cerank.app.comparison.named_systems import RunTarget
    from cerank.evaluation.compare import Comparison
    from cerank.exporting.score_elsewhere import ExportCheck

_TOKENS_ONLY = """\
import numpy as np
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{place}")
session = onnxruntime.InferenceSession("{place}/onnx/{file}")
batch = tokenizer(["a query"], ["a passage"], padding=True, truncation=True, return_tensors="np")
inputs = {{entry.name: batch[entry.name].astype(np.int64) for entry in session.get_inputs()}}
print(session.run(None, inputs)[0][:, 0])
"""
_OPENVINO = """\
import openvino
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{place}")
model = openvino.Core().compile_model("{place}/{file}", "CPU")
batch = tokenizer(["a query"], ["a passage"], padding=True, truncation=True, return_tensors="np")
print(model({{entry.get_any_name(): batch[entry.get_any_name()] for entry in model.inputs}})[0][:, 0])
"""
_SENTENCE_TRANSFORMERS = """\
from sentence_transformers import CrossEncoder

model = CrossEncoder("{place}")
print(model.predict([("a query", "a passage")]))
"""
_TRANSFORMERS = """\
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{place}")
model = AutoModelForSequenceClassification.from_pretrained("{place}").eval()
batch = tokenizer(["a query"], ["a passage"], padding=True, truncation=True, return_tensors="pt")
with torch.inference_mode():
    print(model(**batch).logits{which})
"""
_CERANK = """\
import cerank

model = cerank.load("{place}")
print(model.score("a query", ["a passage"]))
"""


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What was exported, as the card describes it."""

    form: ExportFormat
    pooling: str
    max_length: int
    check: ExportCheck
    quantized: QuantizedResult | None
    license: str  # as the hub abbreviates it; "" where the user names none
    label: int | None = None  # of two labels, the one that means relevant
    query_prompt: str = ""  # that must be written before each query
    place: str = "this folder"  # what the examples load


def text(model: NamedModel, exported: Exported) -> str:
    """Return the card: metadata that the hub understands, then Markdown.

    Args:
        model: the model, with the run that trained it.
        exported: what was written of it.

    Raises:
        MissingError: it comes from no run.
    """
    run = model.run
    if run is None:
        raise MissingError("the folder is not a run", where=str(model.folder))
    recipe = run.plan.recipe
    comparison = _comparison(run)
    base = BASES.get(recipe.base)
    license_ = exported.license or (base.license if base else "")
    parts = [
        f"---\n{_metadata(run, comparison, exported, license_)}\n---",
        f"# {_title(run)}",
        f"A cross-encoder re-ranker, fine-tuned with cerank {escapes.markdown(cerank.__version__)} from "
        f"{escapes.markdown(_base_name(recipe.base))}. It reads a query with a passage, {exported.max_length} tokens "
        "together at most, and gives a score without bounds; the larger, the more relevant.",
        "## Results",
        *_results(run, comparison),
        *_quantized(exported.quantized),
        "## Use",
        *_use(exported),
        *(
            [f"Each query begins with {escapes.markdown(repr(exported.query_prompt))}."]
            if exported.query_prompt
            else []
        ),
        *_form_of_documents(model.folder),
        f"Checked after writing: {exported.check.text}.",
        "## Data",
        *_data(run),
        "## Recipe",
        f"Stage {escapes.markdown(run.system)} of {escapes.markdown(', '.join(recipe.chain))}; seed {recipe.seed}.",
        f"````toml\n{_without_home(render(recipe)).strip()}\n````",
        "## Cost",
        *_cost(run),
        "## License",
        _license(license_, is_given=bool(exported.license), base=_base_name(recipe.base)),
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def evaluation_results(comparison: Comparison, system: str) -> list[Any]:
    """Return what the hub shows as results: the mean of each measure of the exported stage on each test dataset."""
    from huggingface_hub import EvalResult

    out = []
    for each in comparison.systems:
        if each.label != system:
            continue
        for measured in each.measured:
            for measure, values in measured.values.items():
                first = measured.condition.first_stage
                out.append(
                    EvalResult(
                        task_type="text-ranking",
                        task_name=f"re-ranking of {first}" if first else "ranking",
                        dataset_type=_metadata_name(measured.condition.dataset),
                        dataset_name=str(measured.condition),
                        metric_type=_metadata_name(measure),
                        metric_name=measure,
                        metric_value=round(statistics.fmean(values.values()), 6),
                    )
                )
    return out


def _metadata(run: RunTarget, comparison: Comparison | None, exported: Exported, license_: str) -> str:
    from huggingface_hub import ModelCardData

    recipe = run.plan.recipe
    library = "sentence-transformers" if exported.form == "sentence-transformers" else "transformers"
    base = BASES.get(recipe.base)
    hub_id = base.hub_id if base else recipe.base
    data = ModelCardData(
        license=license_.lower() or None,
        library_name=exported.form.partition("-")[0] if exported.form in GRAPH_FILES else library,
        pipeline_tag="text-ranking",
        base_model=hub_id if hub_id.count("/") == 1 and not hub_id.startswith((".", "~", "/")) else None,
        tags=["cross-encoder", "reranker", "cerank"],
        model_name=_title(run),
        eval_results=evaluation_results(comparison, run.system) if comparison is not None else None,
    )
    return str(data.to_yaml()).strip()


def _comparison(run: RunTarget) -> Comparison | None:
    from cerank.app.comparison import comparisons

    try:
        return comparisons.of_run(run.folder)
    except MissingError:
        return None


def _results(run: RunTarget, comparison: Comparison | None) -> list[str]:
    from cerank.app.comparison import export_comparison
    from cerank.evaluation.answers import paragraphs
    from cerank.evaluation.comparison_rows import footnotes

    if comparison is None:
        return ["This run has not been measured."]
    answer = run_answer.of_run(run.folder)
    notes = [f"- {escapes.markdown(line)}" for line in footnotes(comparison)]
    return [
        f"This model is **{escapes.markdown(run.system)}** in the table.",
        export_comparison.as_text(comparison, "markdown"),
        *[escapes.markdown(paragraph) for paragraph in (answer.paragraphs or paragraphs(comparison))],
        "What the verdicts rest on:\n\n" + "\n".join(notes),
    ]


def _quantized(result: QuantizedResult | None) -> list[str]:
    if result is None:
        return []
    return ["### In 8 bits", "\n".join(f"- {escapes.markdown(line)}" for line in result.sentences)]


def _use(exported: Exported) -> list[str]:
    """Return examples for the libraries that load it, and say which do not."""
    place, form = exported.place, exported.form
    if form.startswith("openvino"):
        file = GRAPH_FILES[form].as_posix()
        note = "The graph holds pooling and head; sentence-transformers and transformers load other formats."
        return ["With openvino:", _block(_OPENVINO.format(place=place, file=file)), note]
    if form.startswith("onnx"):
        file = GRAPH_FILES[form].name
        note = "The graph holds pooling and head; sentence-transformers and transformers load other formats."
        return ["With onnxruntime:", _block(_TOKENS_ONLY.format(place=place, file=file)), note]
    out = ["With cerank:", _block(_CERANK.format(place=place))]
    if form == "sentence-transformers":
        out += ["With sentence-transformers 5.4 or later:", _block(_SENTENCE_TRANSFORMERS.format(place=place))]
    if exported.pooling == "classifier":
        which = "" if exported.label is None else f".log_softmax(dim=-1)[:, {exported.label}]"
        out += ["With transformers:", _block(_TRANSFORMERS.format(place=place, which=which))]
    elif exported.pooling == "answer":
        out.append("transformers' Auto class loads it; template and answers are in `reranker.toml`.")
    else:
        out.append("transformers' AutoModel loads the encoder alone, without the head.")
    return out


def _form_of_documents(folder: Path) -> list[str]:
    """Say how the model reads documents, where that is another way than whole, title and text joined by a space."""
    passages, forms, _ = reranked_passages.as_in_run(None, "", folder)
    out = []
    if template := forms.base_template or forms.template:
        out.append(
            "It was trained and measured on documents in the form below, where braces stand for a field of the "
            f"document; write passages so before they are scored:\n\n````text\n{shown(template, lines=True)}\n````"
        )
    if passages is not None:
        out.append(
            f"It was measured on documents cut into passages of {passages.length} tokens, {passages.stride} from the "
            f"start of one to that of the next, up to {passages.max_passages} of a document; their scores were "
            f"aggregated by {passages.aggregation}."
        )
    return out


def _block(code: str) -> str:
    return f"```python\n{code.strip()}\n```"


def _data(run: RunTarget) -> list[str]:
    recipe, data = run.plan.recipe, run.plan.recipe.data
    stages = [stage for _, stage in recipe.chained()]
    rows = [
        *(("training", name) for name in dict.fromkeys(stage.dataset or data.train for stage in stages)),
        *(("validation", name) for name in dict.fromkeys(stage.validation or data.validation for stage in stages)),
        *(("test", name) for name in data.test),
        *(("first stage", name) for name in data.first_stages),
        *((f"teacher of {name}", view.teacher) for name, view in recipe.sources() if view.teacher),
    ]
    hashes = {entry.name: entry.sha256[:12] for entry in run.plan.inputs}
    lines = [
        f"| {kind} | {escapes.markdown(_without_home(str(name)))} | {hashes.get(str(name), '')} |"
        for kind, name in rows
        if name
    ]
    table = "\n".join(["| role | name | sha256 |", "|---|---|---|", *lines])
    note = "cerank does not record the licenses of datasets; see those of the datasets named here."
    return [table, note]


def _cost(run: RunTarget) -> list[str]:
    costs = stage_costs.of_run(run.folder, run.plan)
    numbers = run.folder.attempt_numbers()
    out = [written([stage_costs.table(costs)], "markdown"), stage_costs.NOTE[:1].upper() + stage_costs.NOTE[1:] + "."]
    if numbers:
        attempt = json_records.load_if_there(run.folder.attempt(numbers[-1]), Attempt)
        if attempt is not None:
            machine = f"{attempt.device or 'cpu'}, {attempt.cpu or 'processor unknown'}, {attempt.threads} threads"
            out.append(f"Trained on {escapes.markdown(machine)}. Energy was not measured.")
    return out


def _license(name: str, *, is_given: bool, base: str) -> str:
    if is_given:
        return f"{escapes.markdown(name)}, as stated when this model was exported."
    if name:
        return f"{escapes.markdown(name)}, the license of {escapes.markdown(base)}, from which it was fine-tuned."
    return f"Not stated: see the license of {escapes.markdown(base)}, from which it was fine-tuned."


def _title(run: RunTarget) -> str:
    name = run_store.short_name(run.folder)
    return escapes.markdown(f"{name}-{run.system}")


def _base_name(base: str) -> str:
    known = BASES.get(base)
    if known is not None:
        return known.hub_id
    return base if base.count("/") == 1 and not base.startswith((".", "~", "/")) else Path(base).name


def _without_home(text: str) -> str:
    return text.replace(f"{Path.home()}/", "~/")


def _metadata_name(text: str) -> str:
    """Return a name as the hub's metadata has them: lower case, without spaces or signs."""
    return "".join(char if char.isalnum() else "_" for char in text.lower()).strip("_") or "x"
