"""The command that re-ranks a first stage's candidates with a model or a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from cerank.cli import options
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import info, write_output
from cerank.errors import UsageError
from cerank.recipes.sections.passage_specs import PassageSpec
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    from cerank.app.rerank_dataset import RerankResult
    from cerank.core.passage_scores import Aggregation
    from cerank.exporting.mteb_files import MtebTask

_PRECISION = (
    "Precision of the model. auto is bf16 where the device multiplies it faster, or fp16 on a GPU that has no bf16; "
    "fp16 and tf32 are for NVIDIA GPUs. Default: that of the model's run; without one fp32, or auto on a GPU."
)
_MTEB = "mteb"
_PASSAGES = "Long documents"
UNCHANGED_PASSAGES = PassageSpec()  # the defaults of the options on passages

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Model: a folder, a Hugging Face id, a run, RUN:STAGE, or the address of a /rerank server.",
    ),
]
FirstStage = Annotated[
    str, typer.Option("--first-stage", "--run", metavar="RUN", help="bm25, a run of the dataset, or a TREC run file.")
]
Dataset = Annotated[
    str,
    typer.Option(
        "--dataset",
        metavar="DATASET",
        help="Dataset that gives queries and documents; several as dl19+dl20, beir:*, nanobeir (those on disk).",
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="TREC run file to write; - is standard output. {dataset} in its name stands for each of several datasets.",
    ),
]
Depth = Annotated[
    int, typer.Option("--depth", min=1, metavar="N", help="Number of candidates to re-rank for each query.")
]
Precision = Annotated[
    Literal["fp32", "bf16", "fp16", "tf32", "auto"] | None, typer.Option("--precision", help=_PRECISION)
]
ServerModel = Annotated[
    str,
    typer.Option("--server-model", metavar="NAME", help="Name of the model on the server, such as rerank-v3.5."),
]
Price = Annotated[
    float,
    typer.Option(
        "--price", min=0.0, metavar="N", help="Price of a million tokens at the server, or of a thousand searches."
    ),
]
Shard = Annotated[
    str,
    typer.Option(
        "--shard", metavar="N/OF", help="Score only a part of the queries, such as 3/16, and keep it beside FILE."
    ),
]
Devices = Annotated[
    str,
    typer.Option(
        "--devices",
        metavar="DEVICES",
        help="Share the queries among several devices: all GPUs (all), how many (2), or which (0,1).",
    ),
]
AggregationName = Annotated[
    Literal["none", "MaxP", "FirstP", "SumP", "MeanP", "TopMeanP"] | None,
    typer.Option(
        "--aggregation",
        help="Cut documents into passages; a document's score is that of its best or first passage, a sum or mean. "
        "none: score whole documents, also with a model that a run trained on passages.",
        rich_help_panel=_PASSAGES,
    ),
]
MaxPassages = Annotated[
    int,
    typer.Option("--max-passages", min=1, metavar="N", help="Passages of a document.", rich_help_panel=_PASSAGES),
]
PassageLength = Annotated[
    int,
    typer.Option("--passage-length", min=1, metavar="N", help="Tokens of a passage.", rich_help_panel=_PASSAGES),
]
Stride = Annotated[
    int,
    typer.Option(
        "--stride", min=1, metavar="N", help="Tokens from a passage's start to the next.", rich_help_panel=_PASSAGES
    ),
]
Title = Annotated[
    int,
    typer.Option(
        "--title",
        min=0,
        metavar="N",
        help="Tokens of the title repeated in front of further passages.",
        rich_help_panel=_PASSAGES,
    ),
]
Top = Annotated[
    int,
    typer.Option(
        "--top", min=1, metavar="N", help="Passages of which TopMeanP takes the mean.", rich_help_panel=_PASSAGES
    ),
]
PassageScores = Annotated[
    Path | None,
    typer.Option(
        "--passage-scores",
        metavar="FILE",
        help="Write the score of each passage: query, passage (DOCUMENT%pN), score, separated by tabs.",
        rich_help_panel=_PASSAGES,
    ),
]
Template = Annotated[
    str,
    typer.Option(
        "--template",
        metavar="TEXT",
        help='Text of a document from its fields, such as "{title}. {text}".',
        rich_help_panel=_PASSAGES,
    ),
]
MtebPredictions = Annotated[
    Path | None,
    typer.Option(
        "--mteb-predictions",
        metavar="FOLDER",
        help="Write the ranking as mteb's predictions, too, and its measures as mteb's results.",
        rich_help_panel=_MTEB,
    ),
]
MtebTaskName = Annotated[
    str,
    typer.Option("--mteb-task", metavar="NAME", help="mteb's name of the task: NFCorpus.", rich_help_panel=_MTEB),
]
MtebSubset = Annotated[
    str, typer.Option("--mteb-subset", metavar="NAME", help="Subset of the task.", rich_help_panel=_MTEB)
]
MtebSplit = Annotated[
    str, typer.Option("--mteb-split", metavar="NAME", help="Split of the task.", rich_help_panel=_MTEB)
]


def rerank(
    checkpoint: Model,
    first_stage: FirstStage,
    dataset: Dataset,
    output: Output,
    depth: Depth = 100,
    precision: Precision = None,
    server_model: ServerModel = "",
    price: Price = 0.0,
    shard: Shard = "",
    merge: Annotated[bool, typer.Option("--merge", help="Write FILE from its finished shards.")] = False,
    devices: Devices = "",
    aggregation: AggregationName = None,
    max_passages: MaxPassages = UNCHANGED_PASSAGES.max_passages,
    passage_length: PassageLength = UNCHANGED_PASSAGES.length,
    stride: Stride = UNCHANGED_PASSAGES.stride,
    title: Title = UNCHANGED_PASSAGES.title,
    top: Top = UNCHANGED_PASSAGES.top,
    passage_scores: PassageScores = None,
    template: Template = "",
    mteb_predictions: MtebPredictions = None,
    mteb_task: MtebTaskName = "",
    mteb_subset: MtebSubset = "default",
    mteb_split: MtebSplit = "test",
    metadata: options.Metadata = False,
    actor: options.Actor = "",
    team: options.Team = "",
    goal: options.Goal = "",
    replace: options.Replace = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
    device: options.Device = None,
    threads: options.Threads = None,
) -> None:
    """Re-rank the candidates of a first stage with a model, and write a TREC run with strictly decreasing scores.

    A server (Cohere, Jina, Voyage, vLLM, text-embeddings-inference) is asked once for each query; its answers are kept
    in the cache. Keys are read from COHERE_API_KEY, JINA_API_KEY, VOYAGE_API_KEY or CERANK_RERANK_API_KEY.

    --aggregation cuts long documents into passages, scores each once and aggregates the scores (`cerank guide
    long-documents`). A model that a run trained on passages reads documents so without being told.

    Of several datasets each gets a file, and bm25 or a run that each brings is re-ranked.

    Several devices of a machine share the queries by --devices, several machines by --shard: what is finished is kept
    beside FILE, the same command continues after it, and the bytes are those of one device.
    """
    from cerank.app import rerank_dataset
    from cerank.app.test_collections.collection_groups import is_group
    from cerank.inference.stored_chunks import parse_shard

    settings = settings_of(lab, cache, device, threads)
    request = rerank_dataset.RerankRequest(
        checkpoint=checkpoint,
        dataset=dataset,
        first_stage=first_stage,
        depth=depth,
        precision=precision,
        output=output,
        server_model=server_model,
        replace=replace,
        shard=parse_shard(shard),
        merge=merge,
        devices=devices,
        mteb=_mteb_task(mteb_predictions, mteb_task, mteb_subset, mteb_split),
        passages=passages_request(
            aggregation, max_passages=max_passages, length=passage_length, stride=stride, title=title, top=top
        ),
        passage_scores=passage_scores,
        document_template=template,
        metadata=options.metadata_request(actor=actor, team=team, goal=goal, is_asked=metadata),
    )
    if is_group(dataset):
        from cerank.app.rankings import rerank_collections

        requests, note = rerank_collections.requests_of(settings, request)
        info(note)
        for each in rerank_collections.rerank_each(settings, requests, _tell_progress):
            info(f"{each.dataset}:")
            _tell_result(each.result, price)
            write_output("" if shard else f"{each.output}\n")
        return
    result = rerank_dataset.rerank(settings, request, _tell_progress)
    _tell_result(result, price)
    if shard:
        return  # the output is not there yet
    write_output(result.run.decode() if str(output) in rerank_dataset.STDOUT else f"{output}\n")


def _tell_progress(done: int, total: int) -> None:
    info(f"{done} of {counted(total, 'query')}")


def _tell_result(result: RerankResult, price: float) -> None:
    info(f"{counted(result.queries, 'query')} re-ranked")
    for note in result.notes:
        info(note)
    if result.costs is not None:
        info(result.costs.summary(price))


def passages_request(aggregation: Aggregation | Literal["none"] | None, **lengths: int) -> PassageSpec | None:
    """Return how documents are cut into passages; None where the command does not say.

    Raises:
        UsageError: it says how without --aggregation.
    """
    from cerank.app import reranked_passages

    if aggregation is not None:
        return msgspec.structs.replace(PassageSpec(aggregation=aggregation), **lengths)
    changed = [key for key, value in lengths.items() if value != getattr(UNCHANGED_PASSAGES, key)]
    if changed:
        where = reranked_passages.PASSAGE_OPTIONS[changed[0]]
        hint = "add --aggregation, such as --aggregation MaxP"
        raise UsageError("it says how documents are cut into passages", where=where, hint=hint, code="options-conflict")
    return None


def _mteb_task(folder: Path | None, task: str, subset: str, split: str) -> MtebTask | None:
    """Return the task whose files are to be written; None where none are.

    Raises:
        UsageError: the folder is given without the task, or the other way round.
    """
    from cerank.exporting.mteb_files import MtebTask

    if folder is None and not task:
        if (subset, split) != ("default", "test"):
            where = "--mteb-subset" if subset != "default" else "--mteb-split"
            raise UsageError(
                "it is a part of mteb's task", where=where, hint="add --mteb-task", code="options-conflict"
            )
        return None
    if folder is None or not task:
        what = "--mteb-predictions and --mteb-task need each other"
        raise UsageError(what, where="--mteb-predictions", hint="such as --mteb-predictions out --mteb-task NFCorpus")
    return MtebTask(folder=folder, task=task, subset=subset, split=split)
