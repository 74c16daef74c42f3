"""Following a run from the terminal that started it: a live line on a terminal, plain lines elsewhere.

Invariant: the run does not need this process and continues if it dies.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from types import TracebackType

from cerank.app import Lab, next_steps
from cerank.app.lab import Worker
from cerank.app.run_views.display import clock
from cerank.app.run_views.run_updates import Follower, RunUpdate
from cerank.cli.document_meta import meta_of_comparison
from cerank.cli.output import emit, format_of, info, is_for_machines, width_of, write_output
from cerank.cli.progress_messages import ProgressMessages
from cerank.cli.tables import measured_tables, run_tables
from cerank.core.metrics import Progress
from cerank.errors import ExitCode
from cerank.executors.interface import JobExecutor
from cerank.recipes.plan import Plan
from cerank.runs import run_store
from cerank.runs.job_records import JobRecord
from cerank.runs.layout import RunFolder
from cerank.text.safe_text import counted, shown

POLL_SECONDS = 0.5  # seconds
_MOST_NAMED = 3  # queued runs
_ALL_START = "They start by themselves, one after the other"
LINE_SECONDS = 15.0  # seconds between lines where there is no terminal to draw on
REPORTED_EVENTS = {
    "groups counted",
    "stage finished",
    "rejected",
    "replay mismatch",
    "environment changed",
    "teacher repaired",
    "teacher lists dropped",
    "teacher lists cut",
}
REPORTED_EVENTS |= {"waits for a device", "estimated", "candidates", "teacher ties", "stage gained nothing"}
REPORTED_EVENTS |= {"aggregation chosen", "scores collapsed", "loss does not move", "stage moved nothing"}


class ProgressLines:
    """Progress as lines on stderr, now and then."""

    def __init__(self) -> None:
        self._messages = ProgressMessages(LINE_SECONDS, is_first_printed=True)

    def update(self, progress: Progress | None, loss: float | None, measures: str) -> None:
        """Show a line if the last one is a while ago."""
        if progress is not None:
            self._messages.show(described(progress, loss, measures))


@contextmanager
def status_line() -> Iterator[Callable[[str], object]]:
    """Show a spinner on a terminal's stderr during the `with` block; yield a function that names what is waited for.

    What a library draws of a download meanwhile comes out above it.
    """
    if not sys.stderr.isatty():
        yield str
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    with console.status("preparing") as status:
        yield lambda what: status.update(Text(shown(what, 100), no_wrap=True, overflow="ellipsis"))


class ProgressBars:
    """Progress as two live lines with bars, drawn by rich on stderr: the phase at work, and the whole run."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.text import Text

        class Safe(TextColumn):
            """Outside text as it is, not as markup."""

            def render(self, task: object) -> Text:
                return Text(str(getattr(task, "description", "")), no_wrap=True, overflow="ellipsis")

        console = Console(stderr=True, markup=False, highlight=False, emoji=False)
        self._bar = Bar(BarColumn(bar_width=24), Safe(""), console=console, transient=True)
        self._phase = self._bar.add_task("starting", total=None)
        self._run = self._bar.add_task("the whole run", total=None, visible=False)

    def __enter__(self) -> ProgressBars:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def update(self, progress: Progress | None, loss: float | None, measures: str) -> None:
        """Draw both lines; that of the whole run once it was estimated."""
        if progress is None:
            return
        self._bar.update(
            self._phase,
            description=described_phase(progress, loss, measures),
            completed=progress.done,
            total=progress.total if progress.total > 1 else None,
        )
        if progress.run_seconds_left is not None:
            self._bar.update(
                self._run, description=described_run(progress), completed=progress.run_share, total=1.0, visible=True
            )


_PHASES = {
    "start": "starting",
    "wait": "waiting:",
    "inputs": "reading the inputs",
    "candidates": "candidates:",
    "estimate": "measuring this machine's speed",
    "groups": "counting groups for",
    "teacher": "teacher of",
    "measure": "measuring",
}  # what the user reads for a phase, where its own word does not do


def described_phase(progress: Progress, loss: float | None, measures: str) -> str:
    """Return what a run is at, in a line."""
    parts = [f"{_PHASES.get(progress.phase, progress.phase)} {shown(progress.detail, 60)}".strip()]
    if progress.total > 1:
        parts.append(f"{progress.done}/{progress.total}")
    if loss is not None and progress.phase in {"train", "validate"}:
        parts.append(f"loss {loss:.3f}")
    if measures:
        parts.append(measures)
    if progress.pairs_per_second:
        parts.append(f"{progress.pairs_per_second:.0f} pairs/s")
    if progress.run_seconds_left is None and progress.seconds_left >= 1:
        parts.insert(1, f"{clock(progress.seconds_left)} left")
    return "  ".join(parts)


def described_run(progress: Progress) -> str:
    """Return how far the whole run is; "" where it was not estimated."""
    if progress.run_seconds_left is None:
        return ""
    left = f"  {clock(progress.run_seconds_left)} left" if progress.run_seconds_left >= 1 else ""
    return f"{progress.run_share:.0%} of the run{left}"


def described(progress: Progress, loss: float | None, measures: str) -> str:
    """Return where a run is, in one line."""
    parts = [described_run(progress), described_phase(progress, loss, measures)]
    return "  ".join(part for part in parts if part)


def follow(lab: Lab, follower: Follower, worker: Worker, form: str, *, wide: bool = False) -> ExitCode:
    """Show a run until it ends or stops, then its result; Ctrl-C stops it at a checkpoint.

    Args:
        lab: the lab of the run.
        follower: reads the run's log from where it stopped reading before.
        worker: the process that carries the run out.
        form: one of `output.FORMATS`, or "" for a table on a terminal and tsv elsewhere.
        wide: whether the result shows every column.
    """
    context = ProgressBars() if sys.stderr.isatty() else nullcontext(ProgressLines())
    folder, was_interrupted = follower.folder, False
    latest = _LatestValues()
    with context as display:
        while True:
            try:
                is_over = worker.poll() is not None  # asked before the look, so that its last words are seen
                update = follower.poll()
                latest.take(update)
                display.update(update.status.progress, latest.loss, latest.measures)
                if is_over:
                    break
                time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                if was_interrupted:
                    resume = f"Resume it with {next_steps.command(lab.folder, 'resume', folder)}."
                    info(f"Run {run_store.title(folder)} will stop after the current step. {resume}")
                    return ExitCode.INTERRUPTED
                was_interrupted = True
                run_store.request_stop(folder)
                info("Stopping after the current step. Press Ctrl-C again to return to the shell; the run still stops.")
    if worker.returncode == ExitCode.HELD:
        info(
            f"Run {run_store.title(folder)} is already being run by another process. "
            f"Follow it with {next_steps.command(lab.folder, 'logs -f', folder)}."
        )
        return ExitCode.HELD
    return _report_end(lab, folder, form, was_interrupted, wide)


class _LatestValues:
    """The newest figures of a run, and what was told of it."""

    def __init__(self) -> None:
        self.loss: float | None = None
        self.measures = ""

    def take(self, update: RunUpdate) -> None:
        for event in update.events:
            if event.kind in REPORTED_EVENTS:
                info(f"{event.kind}: {event.text}")
        for reading in update.readings:
            old = reading.loss if self.loss is None else self.loss
            self.loss = 0.9 * old + 0.1 * reading.loss
        for row in update.validations:
            self.measures = " ".join(f"{name} {value:.4f}" for name, value in row.measures.items())
            info(f"validation at step {row.step}: {self.measures}")


def _report_end(lab: Lab, folder: RunFolder, form: str, was_interrupted: bool, wide: bool) -> ExitCode:
    """Show how a run ended and show its table; return what the command ends with."""
    status = lab.status(folder)
    resume = f"Resume it with {next_steps.command(lab.folder, 'resume', folder)}."
    if status.state == "finished":
        print_result(lab, folder, form, wide=wide)
        return ExitCode.OK
    if status.state == "paused":
        info(f"Run {run_store.title(folder)} is paused at a checkpoint. {resume}")
        return ExitCode.INTERRUPTED if was_interrupted else ExitCode.PAUSED
    if status.state == "failed" and status.failure is not None:
        info(f"Run {run_store.title(folder)} failed: {status.text}")
        info(f"See the log {folder.log}. After fixing the problem: {next_steps.command(lab.folder, 'resume', folder)}")
        return ExitCode.FAILED
    info(f"Run {run_store.title(folder)} is {status.state}{': ' + status.text if status.text else ''}. {resume}")
    info(f"The last output of its worker is in {folder.log}")
    return ExitCode.FAILED


def print_result(lab: Lab, folder: RunFolder, form: str, *, wide: bool) -> None:
    """Print the result of a finished run: tables, suggested next commands, and the answer.

    Where stdout is for machines, people find the tables on stderr.
    """
    from cerank.app import next_steps
    from cerank.app.comparison import recorded_looks, run_answer

    plan, answer = run_store.load_plan(folder), run_answer.of_run(folder)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    looks = recorded_looks.record(
        lab.settings,
        recorded_looks.keys_of(answer.comparison),
        by="run",
        now=now,
        descriptive=recorded_looks.descriptive_keys_of(answer.comparison),
        pooled=answer.pooled,
    )
    price, run = lab.settings.hour_price, run_store.short_name(folder)
    shown = measured_tables.result_tables(answer, form, price, run=run)
    meta = meta_of_comparison(answer.comparison)
    emit([*shown, run_tables.file_table(folder, plan)], form, wide=wide, meta=meta)
    if format_of(form) != "table":
        emit(measured_tables.result_tables(answer, "table", price, run=run), "table", sys.stderr, wide=wide)
    if lines := next_steps.after_first(lab, folder, plan):
        info("\n".join(["", "Next:", *lines]))
    if looks is not None and looks.look > 1:
        info(looks.text)
    print_answers(answer.paragraphs)


def print_answers(paragraphs: Sequence[str]) -> None:
    """Print the answers on stderr, broken at words, with an empty line before each."""
    from cerank.cli.terminal_table import wrapped

    for text in paragraphs:
        info("\n" + "\n".join(wrapped(text, min(100, width_of(sys.stderr)))))


def wait_until_running(lab: Lab, folder: RunFolder, worker: Worker) -> None:
    """Return once the worker is at the run, or has ended."""
    while worker.poll() is None and lab.status(folder).state not in {"running", "stopping"}:
        time.sleep(POLL_SECONDS)


def wait_until_stopped(lab: Lab, folder: RunFolder) -> None:
    """Return once no worker is at the run."""
    while lab.status(folder).state in {"running", "stopping"}:
        time.sleep(POLL_SECONDS)


def tell_queued(lab: Lab, folders: Sequence[RunFolder], plan: Plan, what: str = "") -> None:
    """Print the names of runs that were put into the queue, and say what the first of them waits for.

    Args:
        lab: lab of the runs.
        folders: the runs, in their order; at least one.
        plan: of the first one.
        what: said of them, such as ", one for each fold"; "" for nothing.
    """
    names = f"Run {run_store.title(folders[0])} is" if len(folders) == 1 else f"{counted(len(folders), 'run')} are"
    places = "its place" if len(folders) == 1 else "their places"
    shows = f"{next_steps.command(lab.folder, 'queue')} shows {places}."
    info(f"{names} queued{what}. {wait_in_words(lab, folders, plan)} {shows}")
    print_names(lab, folders)


def print_names(lab: Lab, folders: Sequence[RunFolder]) -> None:
    """Print a name for each run: the short one for people, the id for programs."""
    is_exact = is_for_machines(lab.settings.format)
    write_output("".join(f"{folder.name if is_exact else run_store.short_name(folder)}\n" for folder in folders))


def wait_in_words(lab: Lab, folders: Sequence[RunFolder], plan: Plan) -> str:
    """Return in a sentence or two what the first of queued runs waits for, and behind what.

    Args:
        lab: lab of the runs.
        folders: the runs, in their order; at least one.
        plan: of the first one.
    """
    from cerank.app.run_views.run_monitor import device_waited_for

    short, queued = run_store.short_names(lab.folder), [folder.name for folder in lab.queued()]
    first = folders[0].name
    which = "It" if len(folders) == 1 else "The first of them"
    if first not in queued:
        return f"{which} has started."
    ahead = [short[name] for name in queued[: queued.index(first)]]
    if not (waits_for := device_waited_for(lab.queue_state(), plan, short)):
        return f"{which} starts after {_some(ahead)}." if ahead else f"{which} starts now."
    place = f", behind {_some(ahead)}" if ahead else ""
    return f"{which} waits{place}: {waits_for}. {'It starts by itself' if len(folders) == 1 else _ALL_START}."


def _some(names: Sequence[str]) -> str:
    """Return a few names in words, and how many more there are."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def tell_submitted(
    lab: Lab, folders: Sequence[RunFolder], records: Sequence[JobRecord], executor: JobExecutor | None = None
) -> None:
    """Print the ids of submitted runs, or the lines that the user is to run; say which jobs they are.

    Args:
        lab: lab of the runs.
        folders: the runs.
        records: their jobs.
        executor: where they were submitted to; default: the lab's.
    """
    from cerank.executors.command_template import CommandExecutor
    from cerank.executors.submissions import jobs_of

    executor = executor or lab.executor
    if isinstance(executor, CommandExecutor) and executor.prints:
        info("Run this where the lab and the data are under the same paths:")
        for job in jobs_of(executor, folders):
            write_output(executor.line(job) + "\n")
        return
    for folder, record in zip(folders, records, strict=True):
        stages = f", after {' and '.join(record.before)} for stages that other runs share" if record.before else ""
        info(f"Run {run_store.title(folder)} is {record.executor} job {record.id or '(no id)'}{stages}.")
        write_output(folder.name + "\n")
    ps, stop = next_steps.command(lab.folder, "ps"), next_steps.command(lab.folder, "stop RUN")
    info(f"{ps} shows how they stand, {stop} cancels one.")
