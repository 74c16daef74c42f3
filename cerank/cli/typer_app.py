"""List every command, in the order in which `cerank --help` shows them."""

from __future__ import annotations

from typing import Annotated

import typer

import cerank
from cerank.cli.command_class import CommandLine
from cerank.cli.commands_on_use import GroupOnUse, ListedCommand
from cerank.cli.output import write_output

_RUNS, _MEASURING, _SHARING, _CATALOG = "Runs", "Measuring", "Using what was trained", "Catalog and settings"


class _Commands(GroupOnUse):
    listed = (
        ListedCommand(
            "tui",
            "dashboard",
            "tui",
            _RUNS,
            "Open the dashboard, to start, watch, stop and compare runs in a terminal.",
        ),
        ListedCommand(
            "run",
            "start_run",
            "run",
            _RUNS,
            "Fine-tune and re-rank as a recipe says, and show the paired comparison of the stages.",
        ),
        ListedCommand(
            "sweep",
            "sweeps.sweep_command",
            "sweep",
            _RUNS,
            "Search settings on validation alone, with the same number of trials for each recipe.",
        ),
        ListedCommand(
            "resume", "start_run", "resume", _RUNS, "Resume a paused, lost or failed run from its latest checkpoint."
        ),
        ListedCommand(
            "stop",
            "start_run",
            "stop",
            _RUNS,
            "Stop a run after its current step, with a checkpoint; `cerank resume` continues from there.",
        ),
        ListedCommand("ps", "watch_runs", "ps", _RUNS, "List the runs of the lab, the newest last."),
        ListedCommand(
            "show", "watch_runs", "show", _RUNS, "Show one run: its result, validations, stages, inputs and files."
        ),
        ListedCommand(
            "logs",
            "watch_runs",
            "logs",
            _RUNS,
            "Print the events of a run; if it failed, also the output of its worker.",
        ),
        ListedCommand(
            "query",
            "records.query_command",
            "query",
            _RUNS,
            "Ask the runs of the lab in SQL, read-only: states, settings, validations and measures.",
        ),
        ListedCommand(
            "log",
            "records.log_command",
            "log_app",
            _RUNS,
            "The lab book: what you plan, decide and find, with verdicts and figures kept under their hashes.",
        ),
        ListedCommand(
            "track",
            "sharing.track_command",
            "track",
            _RUNS,
            "Send the curves, tables and verdict of a run to wandb, trackio, mlflow or tensorboard.",
        ),
        ListedCommand(
            "copy",
            "sharing.move_runs",
            "copy",
            _RUNS,
            "Copy runs to another lab, with every hash checked; after a cut, the same command continues.",
        ),
        ListedCommand(
            "pull",
            "sharing.move_runs",
            "pull",
            _RUNS,
            "Copy runs from another lab into this one, every hash checked; after a cut, the same command continues.",
        ),
        ListedCommand(
            "lab-server",
            "sharing.move_runs",
            "lab_server",
            _RUNS,
            "Answer a dashboard or a copy on another machine, which starts this over ssh with --lab ssh://HOST/FOLDER.",
            is_hidden=True,
        ),
        ListedCommand("rm", "start_run", "rm", _RUNS, "Delete runs with their checkpoints, rankings and measures."),
        ListedCommand(
            "verify",
            "check",
            "verify",
            _RUNS,
            "Compute every checksum of a run and its measures again, and compare them with the stored ones.",
        ),
        ListedCommand(
            "doctor",
            "check",
            "doctor",
            _RUNS,
            "Check the lab, its runs, the cache and this machine, and print what to do about each problem.",
        ),
        ListedCommand(
            "compare",
            "measure",
            "compare",
            _MEASURING,
            "Compare rankings query by query: better, worse, equivalent, different but negligible, or cannot tell.",
        ),
        ListedCommand(
            "explain",
            "evidence.explain_rankings",
            "explain",
            _MEASURING,
            "Tell why two rankings differ: "
            "which queries carry the difference, or which documents make that of one query.",
        ),
        ListedCommand(
            "declare",
            "evidence.declare_plan",
            "declare",
            _MEASURING,
            "Declare how rankings will be compared, before they are: "
            "the plan is kept with its time, under a hash to publish.",
        ),
        ListedCommand(
            "report",
            "report_command",
            "report",
            _MEASURING,
            "Write a paper's tables, with corrected significance marks, loss curves, published figures and sources.",
        ),
        ListedCommand(
            "power",
            "estimate_power",
            "power",
            _MEASURING,
            "Compute what a number of queries can show, before anything is trained.",
        ),
        ListedCommand(
            "pool",
            "judge_results",
            "pool",
            _MEASURING,
            "Pool comparisons on several collections: "
            "the mean difference over them, and what a new collection would show.",
        ),
        ListedCommand(
            "gate",
            "judge_results",
            "gate",
            _MEASURING,
            "Check whether NEW may replace BASE. Exit code 0: it ships; 1: it is worse; 4: these queries cannot tell.",
        ),
        ListedCommand(
            "rejudge",
            "judge_results",
            "rejudge",
            _MEASURING,
            "Judge a published table again: what its differences, numbers of queries and p-values bear together.",
        ),
        ListedCommand(
            "schema",
            "judge_results",
            "schema",
            _MEASURING,
            "Print the JSON Schema of a document that cerank writes for other programs.",
        ),
        ListedCommand(
            "rerank",
            "rankings.rerank_command",
            "rerank",
            _MEASURING,
            "Re-rank the candidates of a first stage with a model, "
            "and write a TREC run with strictly decreasing scores.",
        ),
        ListedCommand(
            "evaluate",
            "measure",
            "evaluate",
            _MEASURING,
            "Measure TREC runs with the qrels of a dataset or a file (as `trec_eval -c`: "
            "a query without results counts 0).",
        ),
        ListedCommand(
            "depths",
            "rankings.depth_command",
            "depths",
            _MEASURING,
            "Show how quality and time grow with the depth of re-ranking: "
            "where it starts to hurt, and which depth is enough.",
        ),
        ListedCommand(
            "folds",
            "rankings.folds_command",
            "folds",
            _MEASURING,
            "Compare by cross-validation: each query counts once, as the model scored it that was not trained on it.",
        ),
        ListedCommand(
            "interaction",
            "rankings.interaction_command",
            "interaction",
            _MEASURING,
            "Test whether the order of re-rankers holds behind another first stage: first stages by re-rankers.",
        ),
        ListedCommand(
            "effects",
            "rankings.effects_command",
            "effects",
            _MEASURING,
            "Show what each factor of a matrix changes: "
            "the effect of a setting, of a recipe or of a base model, by query.",
        ),
        ListedCommand(
            "fuse",
            "rankings.fuse_command",
            "fuse",
            _MEASURING,
            "Fuse rankings of the same queries into one TREC run, "
            "which `cerank compare` takes as a system like any other.",
        ),
        ListedCommand(
            "retrieve",
            "rankings.retrieve_command",
            "retrieve",
            _MEASURING,
            "Retrieve from a closed collection by a cross-encoder alone, with a fixed number of calls for each query.",
        ),
        ListedCommand(
            "bench",
            "bench",
            "bench",
            _MEASURING,
            "Measure how many pairs this machine re-ranks and trains per second, "
            "with cerank and with sentence-transformers.",
        ),
        ListedCommand(
            "export",
            "sharing.export_command",
            "export",
            _SHARING,
            "Write the re-ranker of a run for another library, with a model card, and check its scores there.",
        ),
        ListedCommand(
            "push",
            "sharing.export_command",
            "push",
            _SHARING,
            "Upload the re-ranker of a run to the Hugging Face hub, "
            "with a model card that holds its evaluation results.",
        ),
        ListedCommand(
            "serve",
            "sharing.serve_command",
            "serve",
            _SHARING,
            "Serve a re-ranker over HTTP: POST /rerank and /v1/score, as Cohere, Jina and vLLM answer.",
        ),
        ListedCommand(
            "guide",
            "show_guide",
            "guide",
            _CATALOG,
            "List the guides, or show one: verdicts, recipes, datasets, matrices, output formats and more.",
        ),
        ListedCommand(
            "datasets",
            "catalog",
            "datasets",
            _CATALOG,
            "List datasets, search the ids of ir_datasets, or describe one dataset.",
        ),
        ListedCommand(
            "bases",
            "catalog",
            "bases",
            _CATALOG,
            "List the base models that have a short name, or say how one base is read.",
        ),
        ListedCommand(
            "queue",
            "manage_queue",
            "queue_app",
            _RUNS,
            "The queue: runs that start automatically, in order, one on each free device.",
        ),
        ListedCommand(
            "teach",
            "teach",
            "teach_app",
            _MEASURING,
            "Make the rankings of a teacher that a recipe declares in [teachers.NAME], and judge them.",
        ),
        ListedCommand(
            "recipes",
            "catalog",
            "recipes_app",
            _CATALOG,
            "Recipes: TOML files that say what to fine-tune, on what data, in which stages.",
        ),
        ListedCommand(
            "data",
            "mining.mine_command",
            "data_app",
            _CATALOG,
            "Training data: fetch it, import it from formats of other tools, prepare it for runs.",
        ),
        ListedCommand(
            "config", "catalog", "config_app", _CATALOG, "Settings: their values, and where each comes from."
        ),
    )


app = CommandLine(
    cls=_Commands,
    name="cerank",
    help="A benchmark for fine-tuning cross-encoder re-rankers: contrastive, distillation, or both in stages.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 a run failed, 2 the request is wrong, 3 data or a model is missing, "
    "4 another process runs it, 75 paused at a checkpoint, 130 interrupted.",
)


def _version(is_given: bool) -> None:
    if is_given:
        write_output(f"cerank {cerank.__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """A benchmark for fine-tuning cross-encoder re-rankers: contrastive, distillation, or both in stages."""
