"""Actions on a run that every screen with runs offers. Only stopping and deleting need a confirmation."""

from __future__ import annotations

from collections.abc import Mapping

from cerank.app.matrix.recipe_form import FieldSpec
from cerank.app.run_views import label_runs, run_list
from cerank.app.run_views.run_monitor import RunEntry
from cerank.errors import UsageError
from cerank.text.safe_text import shown
from cerank.tui.cells import content, joined, stacked
from cerank.tui.common.dialogs import ConfirmDialog, FormDialog
from cerank.tui.common.lab_screen import LabScreen


def clone(screen: LabScreen, entry: RunEntry) -> None:
    """Open the form of a new run with the run's recipe in it."""
    if entry.plan is None:
        screen.lab_app.show_message(f"{entry.title} has no readable plan to copy", "warning")
    else:
        screen.lab_app.open_new(entry.plan.requested_recipe)


def stop(screen: LabScreen, entry: RunEntry) -> None:
    """Ask, then stop the run at its next step, or takes it out of the queue."""
    lab_app = screen.lab_app
    if not entry.is_live and entry.state != "queued":
        lab_app.show_message(f"{entry.title} is {entry.state}, so there is nothing to stop", "warning")
        return
    is_queued = not entry.is_live
    what = "It saves a checkpoint after the current step; r resumes it from there."
    question = stacked(
        joined("Take " if is_queued else "Stop ", (entry.title, "bold"), " out of the queue?" if is_queued else "?"),
        content(""),
        content("It is not started; r puts it back at the end." if is_queued else what),
    )

    def stopped(_: bool) -> None:
        lab_app.show_message(
            f"{entry.title} stops after the current step"
            if entry.is_live
            else f"{entry.title} was removed from the queue"
        )
        lab_app.poll(entry.name)

    def answered(is_yes: bool | None) -> None:
        if is_yes:
            screen.run_in_thread(lambda: lab_app.lab.stop(entry.folder), stopped, group="stop")

    screen.app.push_screen(ConfirmDialog(question, "Take out" if is_queued else "Stop"), answered)


def resume(screen: LabScreen, entry: RunEntry) -> None:
    """Put the run in the queue: it resumes as soon as its device is free."""
    lab_app = screen.lab_app
    if entry.state in {"finished", "running", "stopping", "queued"}:
        hint = {"finished": "; c makes a new run from it", "queued": f" ({entry.at})"}.get(entry.state, "")
        lab_app.show_message(f"{entry.title} is already {entry.state}{hint}.", "warning")
        return

    def resumed(_: None) -> None:
        lab_app.show_message(f"{entry.title} resumes as soon as its device is free")
        lab_app.poll(entry.name)

    screen.run_in_thread(lambda: lab_app.lab.resume_queued(entry.folder), resumed, group="resume")


def delete(screen: LabScreen, entry: RunEntry) -> None:
    """Ask, naming what goes, then delete the run."""
    if entry.is_live:
        screen.lab_app.show_message(f"{entry.title} is {entry.state}; stop it first", "warning")
        return
    screen.run_in_thread(
        lambda: run_list.goes_with(entry), lambda what: _confirm_delete(screen, entry, what), group="size"
    )


def _confirm_delete(screen: LabScreen, entry: RunEntry, what: str) -> None:
    lab_app = screen.lab_app
    question = stacked(
        joined("Delete ", (entry.title, "bold"), "?"),
        content(""),
        joined(f"{entry.name}: {what}. ", ("This cannot be undone.", "bold")),
    )

    def gone(_: None) -> None:
        lab_app.show_message(f"deleted {entry.title}")
        lab_app.poll()

    def answered(is_yes: bool | None) -> None:
        if is_yes:
            screen.run_in_thread(lambda: lab_app.lab.remove(entry.folder), gone, group="delete")

    screen.app.push_screen(ConfirmDialog(question, "Delete"), answered)


def edit_label(screen: LabScreen, entry: RunEntry) -> None:
    """Ask for a label and tags."""
    labels = entry.notes
    rows = (
        FieldSpec("label", "label", shown(labels.label), "empty: the label of the plan", "text"),
        FieldSpec("tags", "tags", shown(" ".join(labels.tags)), "separated by spaces", "words"),
    )

    def errors(texts: Mapping[str, str]) -> dict[str, str]:
        try:
            label_runs.labels_in(texts["label"], texts["tags"])
        except UsageError as error:
            return {error.where: error.what}
        return {}

    def answered(texts: dict[str, str] | None) -> None:
        if texts is not None:
            screen.run_in_thread(
                lambda: label_runs.note(entry.folder, texts["label"], texts["tags"]),
                lambda _: screen.lab_app.poll(entry.name),
                group="note",
            )

    screen.app.push_screen(FormDialog(f"Label of {entry.short_name or entry.name}", rows, errors), answered)
