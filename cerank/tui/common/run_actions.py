"""Actions on a run that every screen with runs offers. What starts, ends or deletes work asks first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cerank.app import dashboard_state
from cerank.app.matrix.recipe_form import FieldSpec
from cerank.app.run_views import label_runs, run_list, several_runs
from cerank.app.run_views.run_monitor import RunEntry
from cerank.errors import CerankError, UsageError
from cerank.runs import user_labels
from cerank.text.safe_text import counted, shown
from cerank.tui.cells import content, joined, stacked
from cerank.tui.common.dialogs import ConfirmDialog, FormDialog
from cerank.tui.common.lab_screen import LabScreen
from cerank.tui.common.text_editor import edit_text


def clone(screen: LabScreen, entry: RunEntry) -> None:
    """Open the form of a new run with the run's recipe in it."""
    if entry.plan is None:
        screen.lab_app.show_message(f"{entry.title} has no readable plan to copy", "warning")
    else:
        screen.lab_app.open_new(entry.plan.requested_recipe)


def compare_folds(screen: LabScreen, folds: Sequence[RunEntry]) -> None:
    """Compare the folds of a cross-validation, taken together, with what they re-ranked; seeds are one system."""
    first = run_list.folds_joined(folds)[0]
    names = [run.short_name or run.name for run in folds]
    screen.lab_app.open_compare([f"{first}:first-stage", *run_list.seeds_folded(names, screen.lab_app.entries)])


def compare_marked(screen: LabScreen) -> None:
    """Compare the marked runs; the marked folds of one cross-validation are one system."""
    lab_app = screen.lab_app
    if len(lab_app.marked) < 2:
        lab_app.show_message("Mark at least two runs with space. The first one is the baseline.", "warning")
        return
    known = {entry.name: entry for entry in lab_app.entries}
    marked = [known[name] for name in lab_app.marked if name in known]
    targets = run_list.folds_joined(marked)
    if len(targets) == 1 and len(marked) > 1:  # the folds of one cross-validation, and nothing else
        compare_folds(screen, marked)
        return
    lab_app.open_compare(list(targets))


def _named(entries: Sequence[RunEntry]) -> str:
    """Return the runs in a few words: the name of one, or how many they are."""
    return entries[0].title if len(entries) == 1 else counted(len(entries), "run")


def stop(screen: LabScreen, entries: Sequence[RunEntry]) -> None:
    """Ask, then stop the runs at their next step, or take them out of the queue."""
    lab_app = screen.lab_app
    able = [entry for entry in entries if several_runs.can_stop(entry.state)]
    able.sort(key=lambda entry: several_runs.place_in_stopping(entry.state))
    if not able:
        state = entries[0].state if len(entries) == 1 else "not running"
        lab_app.show_message(f"{_named(entries)}: {state}, so there is nothing to stop", "warning")
        return
    is_queued = not any(entry.is_live for entry in able)
    what = "A checkpoint is saved after the current step; r resumes from there."
    question = stacked(
        joined("Take " if is_queued else "Stop ", (_named(able), "bold"), " out of the queue?" if is_queued else "?"),
        content(""),
        content("It is not started; r puts it back at the end." if is_queued else what),
    )

    def stop_all() -> None:
        for entry in able:
            lab_app.access.stop(entry.folder)

    def stopped(_: None) -> None:
        said = "removed from the queue" if is_queued else "stops after the current step"
        lab_app.show_message(f"{_named(able)}: {said}")
        lab_app.poll(*(entry.name for entry in able))

    def answered(is_yes: bool | None) -> None:
        if is_yes:
            screen.run_in_thread(stop_all, stopped, group="stop")

    screen.app.push_screen(ConfirmDialog(question, "Take out" if is_queued else "Stop"), answered)


def resume(screen: LabScreen, entries: Sequence[RunEntry], *, is_named: bool = True) -> None:
    """Ask, then put the runs in the queue: each resumes as soon as its device is free.

    Trials that their sweep stopped early are left as they are, but for a single one that the user means.

    Args:
        screen: the screen that asks.
        entries: the runs.
        is_named: whether a single run is meant by itself; False where it is all that there is of many.
    """
    lab_app = screen.lab_app
    is_meant = is_named and len(entries) == 1
    able = [
        entry
        for entry in entries
        if several_runs.can_resume(
            entry.state,
            was_stopped_early=entry.trial is not None and bool(entry.trial.stopped),
            is_meant=is_meant,
        )
    ]
    if not able:
        entry = entries[0]
        hint = {"finished": "; c makes a new run from it", "queued": f" ({entry.at})"}.get(entry.state, "")
        text = f"is already {entry.state}{hint}" if len(entries) == 1 else "need no resuming"
        if len(entries) == 1 and entry.state == "damaged":
            text = "is damaged, and cannot be resumed"
        elif len(entries) == 1 and entry.trial and entry.trial.stopped:
            text = "was stopped early by its sweep, and is left as it is"
        lab_app.show_message(f"{_named(entries)} {text}.", "warning")
        return

    def resume_all() -> None:
        for entry in able:
            lab_app.access.resume(entry.folder)

    def resumed(_: None) -> None:
        lab_app.show_message(f"{_named(able)}: resumes as soon as its device is free")
        lab_app.poll(*(entry.name for entry in able))

    def answered(is_yes: bool | None) -> None:
        if is_yes:
            screen.run_in_thread(resume_all, resumed, group="resume")

    which = "It continues from its" if len(able) == 1 else "Each continues from its"
    question = stacked(
        joined("Resume ", (_named(able), "bold"), "?"),
        content(""),
        content(f"{which} latest checkpoint, or from its start, as soon as its device is free."),
    )
    screen.app.push_screen(ConfirmDialog(question, "Resume", loses=False), answered)


def delete(screen: LabScreen, entries: Sequence[RunEntry]) -> None:
    """Ask, naming what goes, then move the runs to the trash."""
    able = [entry for entry in entries if not several_runs.is_at_work(entry.state)]
    if not able:
        state = f" is {entries[0].state}" if len(entries) == 1 else " are running"
        screen.lab_app.show_message(f"{_named(entries)}{state}; stop it first", "warning")
        return
    screen.run_in_thread(
        lambda: screen.lab_app.access.sizes(able), lambda what: _confirm_delete(screen, able, what), group="size"
    )


def _confirm_delete(screen: LabScreen, entries: Sequence[RunEntry], what: str) -> None:
    lab_app = screen.lab_app
    question = stacked(
        joined("Delete ", (_named(entries), "bold"), "?"),
        content(""),
        joined(f"{what}. ", ("They stay in the lab's trash for 7 days; u brings them back.", "bold")),
    )

    def delete_all() -> None:
        for entry in entries:
            lab_app.access.trash(entry.folder)

    def deleted(_: None) -> None:
        lab_app.deleted.append(tuple(entry.name for entry in entries))
        lab_app.show_message(f"{_named(entries)} deleted; u brings back")
        lab_app.poll()

    def answered(is_yes: bool | None) -> None:
        if is_yes:
            screen.run_in_thread(delete_all, deleted, group="delete")

    screen.app.push_screen(ConfirmDialog(question, "Delete"), answered)


def undo_delete(screen: LabScreen) -> None:
    """Bring back the runs that were deleted last."""
    lab_app = screen.lab_app
    if not lab_app.deleted:
        lab_app.show_message("Nothing was deleted since the dashboard was opened.")
        return
    names = lab_app.deleted.pop()

    def restore_all() -> None:
        for name in names:
            lab_app.access.restore(name)

    def restored(_: None) -> None:
        lab_app.show_message(f"{counted(len(names), 'run')} brought back")
        lab_app.poll(*names)

    screen.run_in_thread(restore_all, restored, group="restore")


def edit_note(screen: LabScreen, entry: RunEntry) -> None:
    """Open the note on a run in the user's editor."""

    def take(text: str) -> tuple[str, ...]:
        try:
            screen.lab_app.access.save_note(entry.folder, text)
        except CerankError as error:
            return (str(error),)
        screen.lab_app.poll(entry.name)
        return ()

    path = dashboard_state.state_folder() / "drafts" / f"note-{entry.name}.md"
    edit_text(screen, user_labels.load_note(entry.folder), path, take)


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
                lambda: screen.lab_app.access.save_label(entry.folder, texts["label"], texts["tags"]),
                lambda _: screen.lab_app.poll(entry.name),
                group="note",
            )

    screen.app.push_screen(FormDialog(f"Label of {entry.short_name or entry.name}", rows, errors), answered)
