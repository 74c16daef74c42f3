"""The options that several commands share, each declared once: name, metavar, help, completion.

Invariant: nothing here resolves a setting; `settings.resolve` does, so that `config show` can name every source.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cerank import recipes
from cerank.errors import UsageError
from cerank.settings import FORMATS

if TYPE_CHECKING:
    from cerank.exporting.run_metadata import MetadataRequest


def completed_from(names: Callable[[], Sequence[str]]) -> Callable[[str], list[str]]:
    """Return a completion from names, which are asked for when the user presses the key."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


_OUTPUT = "Output"
_WHERE = "Where"
_RECIPE = "Recipe"
_MATRIX = "Matrix"
_METADATA = "ir_metadata"
_TRACKING = "Tracking"

TRACKER_NAMES = ("mlflow", "tensorboard", "trackio", "wandb")

Lab = Annotated[
    str | None,
    typer.Option(
        "--lab",
        metavar="FOLDER",
        help="Folder where runs are kept. Default: see `cerank config show`.",
        rich_help_panel=_WHERE,
    ),
]
LabOrAddress = Annotated[
    str | None,
    typer.Option(
        "--lab",
        metavar="FOLDER",
        help="Folder where runs are kept, or ssh://HOST/FOLDER of another machine. Default: see `cerank config show`.",
        rich_help_panel=_WHERE,
    ),
]
Cache = Annotated[
    str | None,
    typer.Option(
        "--cache",
        metavar="FOLDER",
        help="Folder of indexes and built datasets. Default: see `cerank config show`.",
        rich_help_panel=_WHERE,
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="EXECUTOR",
        help="Where runs are carried out: local, slurm, ray, command, or a table [executors.NAME] of cerank.toml "
        "(`cerank guide clusters`). Default: see `cerank config show`.",
        rich_help_panel=_WHERE,
    ),
]
Slurm = Annotated[
    list[str] | None,
    typer.Option(
        "--slurm",
        metavar="KEY=VALUE",
        help="Option of a Slurm job, such as time=4:00:00 or partition=gpu. May be repeated; without --on it means "
        "--on slurm.",
        rich_help_panel=_WHERE,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="auto, cpu, cuda, cuda:N or mps. Default: auto, which takes a CUDA GPU if there is one, else the CPU.",
        rich_help_panel=_WHERE,
    ),
]
Devices = Annotated[
    str | None,
    typer.Option(
        "--devices",
        metavar="DEVICES",
        help="Several devices for one run: all GPUs (all), how many (2), or which (0,1). With --device cpu a number is "
        "that of processes. Default: one device.",
        rich_help_panel=_WHERE,
    ),
]
ShardParameters = Annotated[
    bool,
    typer.Option(
        "--shard-parameters",
        help="Divide weights, gradients and optimizer among the devices, for a base that is too large for one; as "
        "compute.shard_parameters in a recipe.",
        rich_help_panel=_WHERE,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        help="Number of CPU threads. Default: 0, which takes all physical cores.",
        rich_help_panel=_WHERE,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="table, tsv, csv, json, jsonl, latex or markdown. Default: table on a terminal, else tsv.",
        autocompletion=completed_from(lambda: FORMATS),
        rich_help_panel=_OUTPUT,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Short for --format json.", rich_help_panel=_OUTPUT)]
Wide = Annotated[
    bool,
    typer.Option(
        "--wide", help="Show every column, even if lines get wider than the terminal.", rich_help_panel=_OUTPUT
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only names, one per line.", rich_help_panel=_OUTPUT)]

RecipeNames = Annotated[
    list[str] | None,
    typer.Option(
        "--recipe",
        "-r",
        metavar="RECIPE",
        help="Recipe: a shipped name (`cerank recipes list`) or a .toml file. Several of them make a matrix.",
        autocompletion=completed_from(recipes.shipped),
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting of the recipe, such as stages.distill.learning_rate=3e-6. May be repeated.",
        rich_help_panel=_RECIPE,
    ),
]
Bases = Annotated[
    list[str] | None,
    typer.Option(
        "--base",
        metavar="BASE",
        help="Base model: a name from `cerank bases`, a Hugging Face id, or a folder. Default: the recipe's. "
        "Several of them make a matrix.",
        rich_help_panel=_RECIPE,
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="DATASET",
        help="Train, validate and test on parts of this dataset. Default: the recipe's datasets.",
        rich_help_panel=_RECIPE,
    ),
]
MatrixName = Annotated[
    str,
    typer.Option(
        "--matrix",
        metavar="MATRIX",
        help="Matrix of base models, recipes and seeds: a shipped name (`cerank recipes matrices`) or a .toml file.",
        autocompletion=completed_from(recipes.shipped_matrices),
        rich_help_panel=_MATRIX,
    ),
]
MatrixTitle = Annotated[
    str,
    typer.Option(
        "--name",
        metavar="NAME",
        help="Name under which the matrix is stored. Default: the name in its file.",
        rich_help_panel=_MATRIX,
    ),
]
Seeds = Annotated[
    str, typer.Option("--seeds", metavar="SEEDS", help='Seeds, such as "1,2,3" or 1-5.', rich_help_panel=_MATRIX)
]
SplitBy = Annotated[
    str,
    typer.Option(
        "--split-by",
        metavar="KEY",
        help="Divide --dataset by a field of its queries, such as date (the latest are tested), or by `relevant`: few "
        "and many relevant documents alike in each part.",
    ),
]
Folds = Annotated[
    str,
    typer.Option(
        "--folds",
        metavar="NUMBER|FILE",
        help="Cross-validate on --dataset: a run for each fold of its queries, made here or read from a JSON file.",
        rich_help_panel=_MATRIX,
    ),
]
Baseline = Annotated[
    str,
    typer.Option(
        "--baseline",
        metavar="RECIPE",
        help="Baseline recipe; every other recipe is compared with it.",
        rich_help_panel=_MATRIX,
    ),
]
Test = Annotated[
    list[str] | None,
    typer.Option(
        "--test",
        metavar="DATASET",
        help="Test dataset, in place of the recipe's. May be repeated.",
        rich_help_panel=_RECIPE,
    ),
]
Speed = Annotated[
    float,
    typer.Option(
        "--pairs-per-second",
        metavar="N",
        help="Assumed training speed (pairs/s) for the estimates of --dry-run. "
        "Default: measured on this machine or in earlier runs.",
        min=0.0,
        rich_help_panel=_MATRIX,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", help="Seed of all randomness. Default: the recipe's.", rich_help_panel=_RECIPE),
]
FirstStage = Annotated[
    list[str] | None,
    typer.Option(
        "--first-stage",
        metavar="RUN",
        help="First stage, in place of the recipe's: bm25, scoreddocs, or a TREC run file. May be repeated.",
        rich_help_panel=_RECIPE,
    ),
]
Depth = Annotated[
    int | None,
    typer.Option(
        "--depth",
        metavar="N",
        help="Number of candidates to re-rank for each query. Default: the recipe's.",
        rich_help_panel=_RECIPE,
    ),
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="TRACKER",
        help="Send curves, tables and verdict to wandb, trackio, mlflow or tensorboard, by a process of its own that "
        "the run never waits for. May be repeated.",
        autocompletion=completed_from(lambda: TRACKER_NAMES),
        rich_help_panel=_TRACKING,
    ),
]
TrackProject = Annotated[
    str,
    typer.Option(
        "--track-project",
        metavar="NAME",
        help="Project under which trackers file the run. Default: cerank.",
        rich_help_panel=_TRACKING,
    ),
]
TrackOffline = Annotated[
    bool,
    typer.Option(
        "--track-offline",
        help="Send nothing to a server: trackers keep the run on this machine.",
        rich_help_panel=_TRACKING,
    ),
]
Metadata = Annotated[
    bool,
    typer.Option(
        "--metadata",
        help="Begin each ranking with ir_metadata: comments on machine, model, data, time, memory and energy.",
        rich_help_panel=_METADATA,
    ),
]
Actor = Annotated[
    str, typer.Option("--actor", metavar="NAME", help="Your name, for the metadata.", rich_help_panel=_METADATA)
]
Team = Annotated[str, typer.Option("--team", metavar="NAME", help="Your team's name.", rich_help_panel=_METADATA)]
Goal = Annotated[str, typer.Option("--goal", metavar="TEXT", help="What the run is for.", rich_help_panel=_METADATA)]
Replace = Annotated[bool, typer.Option("--replace", help="Overwrite a file that exists.", rich_help_panel=_OUTPUT)]
Measure = Annotated[
    list[str] | None,
    typer.Option("--measure", "-m", metavar="MEASURE", help="Measure, such as nDCG@10 or AP(rel=2). May be repeated."),
]

Detach = Annotated[bool, typer.Option("--detach", "-d", help="Run in the background and return at once.")]
NewDataset = Annotated[Path, typer.Option("--into", metavar="FOLDER", help="Dataset folder to create.")]
VerifyStored = Annotated[bool, typer.Option("--verify", help="Verify the stored files against their checksums.")]
EstimateCalls = Annotated[
    bool, typer.Option("--dry-run", help="Show the estimated calls, tokens, money and time, and make no call.")
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Repeat calls that failed before.")]


def metadata_request(*, actor: str, team: str, goal: str, is_asked: bool) -> MetadataRequest | None:
    """Return what the header of ir_metadata is to say; None where none is asked for.

    Raises:
        UsageError: a name or goal is given without --metadata.
    """
    from cerank.exporting.run_metadata import MetadataRequest

    if is_asked:
        return MetadataRequest(command=("cerank", *sys.argv[1:]), actor=actor, team=team, goal=goal)
    for option, text in (("--actor", actor), ("--team", team), ("--goal", goal)):
        if text:
            raise UsageError(
                "it is written into the metadata", where=option, hint="add --metadata", code="options-conflict"
            )
    return None
