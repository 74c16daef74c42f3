"""What may be done with a run from any screen that shows one. Only stop and delete ask."""

from __future__ import annotations

from cerank.app.run_views import label_runs, run_list
from cerank.app.run_views.run_monitor import Entry
from cerank.tui.cells import content, joined, stacked
from cerank.tui.common.confirm_dialog import Confirm
from cerank.tui.common.lab_screen import LabScreen
from cerank.tui.common.label_dialog import NoteScreen


def clone(screen: LabScreen, entry: Entry) -> None:
    """Opens the form of a new run with the run's recipe in it."""
    if entry.plan is None:
        screen.house.say(f"{entry.title} has no readable plan to copy", "warning")
    else:
        screen.house.open_new(entry.plan.asked)


def stop(screen: LabScreen, entry: Entry) -> None:
    """Asks, then stops the run at its next step, or takes it out of the queue."""
    house = screen.house
    if not entry.is_live and entry.state != "queued":
        house.say(f"{entry.title} is {entry.state}, so there is nothing to stop", "warning")
        return
    what = "It saves a checkpoint after the current step; r resumes it from there."
    question = stacked(
        joined("Stop ", (entry.title, "bold"), "?"),
        content(""),
        content(what if entry.is_live else "It is removed from the queue; r puts it back at the end."),
    )

    def stopped(_: bool) -> None:
        house.say(
            f"{entry.title} stops after the current step"
            if entry.is_live
            else f"{entry.title} was removed from the queue"
        )
        house.look(entry.name)

    def answered(is_yes: bool | None) -> None:
        if is_yes:
            screen.work(lambda: house.lab.stop(entry.folder), stopped, group="stop")

    screen.app.push_screen(Confirm(question, "Stop"), answered)


def resume(screen: LabScreen, entry: Entry) -> None:
    """Puts the run in the queue: it goes on once its device is free, at once where it is."""
    house = screen.house

    def resumed(_: None) -> None:
        house.say(f"{entry.title} resumes as soon as its device is free")
        house.look(entry.name)

    screen.work(lambda: house.lab.resume_queued(entry.folder), resumed, group="resume")


def delete(screen: LabScreen, entry: Entry) -> None:
    """Asks, naming what goes, then deletes the run."""
    if entry.is_live:
        screen.house.say(f"{entry.title} is {entry.state}; stop it first", "warning")
        return
    screen.work(lambda: run_list.goes_with(entry), lambda what: _ask(screen, entry, what), group="size")


def _ask(screen: LabScreen, entry: Entry, what: str) -> None:
    house = screen.house
    question = stacked(
        joined("Delete ", (entry.title, "bold"), "?"),
        content(""),
        joined(f"{entry.name}: {what}. ", ("This cannot be undone.", "bold")),
    )

    def gone(_: None) -> None:
        house.say(f"deleted {entry.title}")
        house.look()

    def answered(is_yes: bool | None) -> None:
        if is_yes:
            screen.work(lambda: house.lab.remove(entry.folder), gone, group="delete")

    screen.app.push_screen(Confirm(question, "Delete"), answered)


def note(screen: LabScreen, entry: Entry) -> None:
    """Asks for a label and tags."""

    def answered(found: tuple[str, str] | None) -> None:
        if found is not None:
            screen.work(
                lambda: label_runs.note(entry.folder, *found), lambda _: screen.house.look(entry.name), group="note"
            )

    screen.app.push_screen(NoteScreen(entry), answered)
