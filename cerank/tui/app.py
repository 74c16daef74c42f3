"""The dashboard's app: one lab and a stack of screens, which reads the lab's files once a second.

Invariant: every run continues when this process ends.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import msgspec
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.filter import Monochrome
from textual.notifications import SeverityLevel
from textual.reactive import var
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Input
from textual.worker import Worker, get_current_worker

from cerank.app import Lab, dashboard_state, notify
from cerank.app.comparison import export_comparison
from cerank.app.over_ssh.lab_access import LabAccess, LookedAt
from cerank.app.run_views import verdict_summaries
from cerank.app.run_views.display import GLYPHS, clock, short
from cerank.app.run_views.run_monitor import RunEntry, StateChange, state_changes
from cerank.errors import CerankError
from cerank.recipes import shipped
from cerank.recipes.schema import Recipe
from cerank.tui import theme
from cerank.tui.cells import SafeLines, words
from cerank.tui.common.lab_screen import LabScreen
from cerank.tui.runs.run_list_screen import RunsScreen

if TYPE_CHECKING:
    from cerank.tui.common.recording import Recording

T = TypeVar("T")

POLL_SECONDS = 1.0  # seconds
_TWICE = 3.0  # seconds within which ctrl+c is pressed again to leave


class CerankApp(App[str], inherit_bindings=False):
    """The dashboard over a lab. Screens and widgets watch its reactive attributes; nothing is pushed to them.

    Attributes:
        entries: the runs as they were last read, the oldest first.
        marked: names of marked runs, in the order they were marked.
        devices: GPUs in a few characters each; "" where there are none.
        dropped: why the lab's machine is not reached; "" where it is.
        has_loaded: whether the lab was read once.
        polls: how often the lab was read.
        is_recording: whether the screen is being recorded to a file.
    """

    TITLE = "cerank"
    entries: var[tuple[RunEntry, ...]] = var(())
    marked: var[tuple[str, ...]] = var(())
    devices: var[str] = var("")
    dropped: var[str] = var("")
    has_loaded: var[bool] = var(False)
    polls: var[int] = var(0)
    is_recording: var[bool] = var(False)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "question_mark",
            "help",
            "help",
            key_display="?",
            id="app.help",
            tooltip="Show what the keys do on this screen",
        ),
        Binding("colon", "command_palette", "palette", key_display=":", show=False, id="app.palette"),
        Binding("q", "quit", "quit", id="app.quit", tooltip="Leave the dashboard; runs continue"),
        # handled before the focused widget, or letters typed right after it would still go there
        Binding("tab", "focus_next", "next field", show=False, priority=True, id="app.next"),
        Binding("shift+tab", "focus_previous", "previous field", show=False, priority=True, id="app.before"),
        Binding(
            "P",
            "picture",
            "screenshot",
            show=False,
            id="app.picture",
            tooltip="Write this screen to an SVG file, for papers and issues",
        ),
        Binding(
            "ctrl+r",
            "record",
            "record",
            show=False,
            id="app.record",
            tooltip="Record the screen to an asciicast file, until it is pressed again",
        ),
        Binding(
            "ctrl+c",
            "interrupt",
            "copy, or leave",
            show=False,
            priority=True,
            id="app.interrupt",
            tooltip="Copy what is selected; where nothing is, twice leaves",
        ),
    ]
    CSS = """
    ToastRack { dock: top; align: right top; margin: 0; }
    Toast { width: auto; max-width: 90%; margin: 0; padding: 0 1; }
    * { scrollbar-size-vertical: 1; scrollbar-color: $primary 40%; scrollbar-background: $background;
        scrollbar-color-hover: $primary; scrollbar-color-active: $primary; scrollbar-corner-color: $background;
        scrollbar-background-hover: $background; scrollbar-background-active: $background; }
    DataTable, DataTable:focus { background: $background; background-tint: $foreground 0%; }
    DataTable > .datatable--header { background: $panel; color: $foreground; text-style: bold; }
    DataTable:nocolor > .datatable--cursor { text-style: reverse; }
    DataTable:nocolor > .datatable--header { text-style: bold underline; }
    Button:nocolor:focus { text-style: bold reverse; }
    DataTable > .datatable--cursor { background: $primary 25%; color: $foreground; text-style: none; }
    """

    def __init__(
        self,
        lab: Lab,
        *,
        poll_seconds: float = POLL_SECONDS,
        open_at: str = "",
        access: LabAccess | None = None,
    ) -> None:
        """Make the dashboard of a lab.

        Args:
            lab: the lab, whose folder screens read.
            poll_seconds: pause between two looks; 0 looks only when told.
            open_at: id of a run to open at once; "" opens the list of runs.
            access: how the lab is listed and changed; default: as a folder of this machine.
        """
        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)  # else Textual draws in grays
        self.lab = lab
        self.access = access or LabAccess(lab)
        self.state = dashboard_state.DashboardState()
        self.files = Path.cwd()  # where exports go
        self._open_at = open_at  # a run's id; "" opens the list
        self._again: set[str] = set()
        self._poll_seconds = poll_seconds
        self._is_polling = self._is_warm = self._is_judging = False
        self._interrupted_at = -_TWICE
        self._judged: set[str] = set()  # runs whose verdict was computed, or has just come to be computed
        self.deleted: list[tuple[str, ...]] = []  # ids of the runs of each deletion, the last one last
        self._terminal_title = ""
        self._to_announce: set[str] = set()  # runs that finished while this was running
        self._at_work: set[Worker[None]] = set()
        self._recording: Recording | None = None
        self._frame_timer: Timer | None = None
        self._gray = Monochrome()
        self._filters.append(SafeLines())  # the last gate; Textual itself passes escape sequences on

    def on_mount(self) -> None:
        """Show the runs, empty at first; the files are read in a thread."""
        self.register_theme(theme.DARK)
        self.register_theme(theme.LIGHT)
        self.register_theme(theme.HIGH_CONTRAST)
        self.state = dashboard_state.load_state()
        self.theme = theme.WITHOUT_COLOR if self.no_color else theme.chosen(self.state.theme, os.environ)
        self.watch(self, "theme", self._theme_chosen, init=False)
        self._load_keys()
        self.push_screen(RunsScreen())
        self.poll()
        if self._poll_seconds:
            self.set_interval(self._poll_seconds, self.poll)

    def _load_keys(self) -> None:
        """Take the user's own keys; a mistake in their file is shown, and the others hold."""
        path = dashboard_state.keys_file()
        try:
            keys = dashboard_state.load_keys(path)
        except CerankError as error:
            self.show_error(error)
            return
        if keys:
            from cerank.tui.common.key_bindings import check_keys

            self.set_keymap(keys)
            self.run_in_thread(lambda: check_keys(keys, str(path)), group="keys")

    def _theme_chosen(self) -> None:
        if not self.no_color:
            self.remember(theme=self.theme)

    def remember(self, **changed: object) -> None:
        """Save a choice of the user, which holds at the next start, too."""
        self.state = msgspec.structs.replace(self.state, **changed)
        dashboard_state.save_state(self.state)

    # reading the lab

    def poll(self, *again: str) -> None:
        """Read the lab once, in a thread; `again` names runs that were just acted upon."""
        self._again |= set(again)
        if self._is_polling:
            return
        self._is_polling = True
        named, self._again = self._again, set()
        screens = [screen for screen in self.screen_stack if isinstance(screen, LabScreen)]
        followed = {name for screen in screens for name in screen.followed_runs()}
        self.run_in_thread(lambda: self.access.poll(named, followed), self._show_poll, group="poll", last=self._polled)

    def _polled(self) -> None:
        self._is_polling = False
        if not self._is_warm:
            self._is_warm = True
            self.run_in_thread(_warm_up, group="warm")
        if self._again:
            self.poll()

    def _show_poll(self, looked: LookedAt) -> None:
        entries = looked.entries
        if looked.dropped and not self.has_loaded and not entries:
            self.dropped = looked.dropped
            return
        changes = state_changes(self.entries, entries)
        names = {entry.name for entry in entries}
        is_first = not self.has_loaded
        self.marked = tuple(name for name in self.marked if name in names)
        self.devices, self.dropped = looked.devices, looked.dropped
        self.entries = entries
        self.has_loaded = True
        self.polls += 1
        if is_first:
            gc.freeze()  # or the collector walks through the plans of all runs again and again, 0.1 s for a thousand
        for change in changes:
            self._toast(change)
        self._announce_verdicts()
        if self._poll_seconds and not looked.dropped:
            self._compute_verdicts()
        if is_first and self._open_at in names:
            self.open_run(self._open_at)

    def _announce_verdicts(self) -> None:
        """Say what runs came to that finished a moment ago."""
        for entry in self.entries:
            if entry.name in self._to_announce and entry.verdict is not None:
                self._to_announce.discard(entry.name)
                self.show_message(f"{entry.title}: {entry.verdict.sentence}")

    def _compute_verdicts(self) -> None:
        """Have the verdicts of finished runs computed that are not known yet, the newest runs first."""
        missing = [
            entry
            for entry in reversed(self.entries)
            if entry.state == "finished" and entry.verdict is None and entry.name not in self._judged
        ][: verdict_summaries.AT_ONCE]
        if not missing or self._is_judging:
            return
        self._is_judging = True
        self._judged |= {entry.name for entry in missing}

        def done() -> None:
            self._is_judging = False
            self.poll(*(entry.name for entry in missing))

        folders = [entry.folder for entry in missing]

        def compute() -> None:
            worker = get_current_worker()  # canceled when the dashboard ends, which must not wait for minutes
            self.access.compute_verdicts(folders, lambda: worker.is_cancelled)

        self.run_in_thread(compute, group="verdicts", last=done)

    def _toast(self, change: StateChange) -> None:
        """Show what happened to a run; an end is told to the terminal and to the user's webhook, too."""
        entry, glyph = change.entry, GLYPHS[change.now]
        text = ""
        severity: SeverityLevel = "information"
        if change.now == "finished":
            figures = "  ".join(f"{name} {short(value)}" for name, value in list(entry.finals.items())[:3])
            text = f"{glyph} {entry.title} finished  {figures}"
            self._to_announce.add(entry.name)
        elif change.now in {"failed", "damaged"}:
            text, severity = f"{glyph} {entry.title} {change.now}: {entry.why}", "error"
        elif change.now == "lost":
            text, severity = (
                f"{glyph} {entry.title} stopped unexpectedly: its worker died. Press r to resume.",
                "warning",
            )
        elif change.now == "paused" and entry.trial is not None and entry.trial.stopped:
            self.show_message(f"{glyph} {entry.title} was stopped early by sweep {entry.trial.sweep}.")
        elif change.now == "paused":
            self.show_message(f"{glyph} {entry.title} is paused at a checkpoint. Press r to resume.")
        if text:
            self.show_message(text, severity)
            self.tell_outside(text)

    def tell_outside(self, text: str) -> None:
        """Ring the bell, send a notification to the terminal (OSC 9), and the text to the user's command or webhook."""
        line = words(text, 200)
        self.bell()
        self._tell_terminal(9, line)
        target = os.environ.get(notify.VARIABLE, "")
        if target:
            self.run_in_thread(lambda: notify.send(target, line), group="notify")

    def watch_dropped(self, before: str, now: str) -> None:
        """Turn every screen gray while the lab's machine is not reached."""
        if bool(before) == bool(now):
            return
        if now:
            self._filters.insert(0, self._gray)
        else:
            self._filters.remove(self._gray)
            self.show_message("The lab is reached again.")
        for screen in self.screen_stack:
            for widget in screen.walk_children(with_self=True):
                widget.refresh()

    def watch_polls(self) -> None:
        """Show in the terminal's title how far the run is that ends first."""
        live = [entry for entry in self.entries if entry.is_live]
        title = ""
        if live:
            entry = min(live, key=lambda run: run.seconds_left or float("inf"))
            share = "" if entry.run_share is None else f"{100 * entry.run_share:.0f} % "
            title = f"cerank {share}{clock(entry.seconds_left)} {entry.short_name}".replace("  ", " ")
        elif self._terminal_title:
            title = "cerank"
        if title != self._terminal_title:
            self._terminal_title = title
            self._tell_terminal(2, title)

    def _tell_terminal(self, command: int, text: str) -> None:
        """Write an operating system command (OSC) to the terminal: 2 is its title, 9 a notification.

        Textual has no means to do so.
        """
        if self._driver is not None and not self.is_headless:
            self._driver.write("".join(("\x1b]", str(command), ";", words(text, 200), "\x07")))

    # work in threads

    def run_in_thread(
        self,
        job: Callable[[], T],
        done: Callable[[T], None] | None = None,
        *,
        group: str = "work",
        node: DOMNode | None = None,
        last: Callable[[], None] | None = None,
    ) -> None:
        """Do `job` in a thread, then `done` with what it returned; an error is shown as a toast.

        An unexpected exception is written to a file and shown, and the screen stays open.

        Args:
            job: reads or changes files; touches no widget.
            done: called with the result, in the dashboard's own thread; not called once `node` has gone.
            group: a later job of the same group and node takes the place of an earlier one.
            node: the screen or widget that asked.
            last: called in the end, whatever happened.
        """

        def heard(outcome: T, worker: Worker[None]) -> None:
            # asked here, where nothing can come between: a later job of the group may have begun since the thread ended
            if done is not None and not worker.is_cancelled and self.is_running and (node is None or node.is_attached):
                done(outcome)

        def bounded() -> None:
            worker = get_current_worker()
            self._at_work.add(worker)
            try:
                self.call_from_thread(heard, job(), worker)
            except CerankError as error:
                self.call_from_thread(self.show_error, error)
            except Exception as error:  # noqa: BLE001 - the boundary named above
                self.call_from_thread(self._fault, error)
            finally:
                self._at_work.discard(worker)
                if last is not None:
                    self.call_from_thread(last)

        (node or self).run_worker(bounded, thread=True, group=group, exclusive=node is not None, exit_on_error=False)

    @property
    def is_at_work(self) -> bool:
        """Return whether a thread is working; a canceled thread ends when its job does."""
        return bool(self._at_work) or not all(worker.is_finished for worker in self.workers)

    def show_error(self, error: CerankError) -> None:
        """Show why something was not done."""
        self.show_message(str(error), "error")

    def _fault(self, error: Exception) -> None:
        with tempfile.NamedTemporaryFile("w", prefix="cerank-", suffix=".txt", delete=False, encoding="utf8") as file:
            traceback.print_exception(error, file=file)
        self.show_message(f"Internal error: {type(error).__name__}: {error}. The traceback is in {file.name}", "error")

    def show_message(self, text: str, severity: SeverityLevel = "information") -> None:
        """Show a message for some seconds; over a low form in place of the one before."""
        if self.screen.has_class("-low") and getattr(self.screen, "SHOWS_ONE_MESSAGE", False):
            self.clear_notifications()
            self.screen.query("ToastHolder").remove()  # an empty one still takes a line
        self.notify(words(text), severity=severity, markup=False, timeout=10 if severity == "error" else 6)

    def copy_text(self, text: str, name: str) -> None:
        """Copy text to the clipboard; terminals that do not do so stay silent, so a file is offered."""
        self.copy_to_clipboard(words(text, 100_000))
        self.show_message(f"Copied {name}. If your terminal does not support this, press e to export.")

    # marks

    def toggle_mark(self, name: str) -> None:
        """Mark a run, or remove its mark."""
        others = tuple(marked for marked in self.marked if marked != name)
        self.marked = others if name in self.marked else (*others, name)

    # actions

    def open_compare(self, targets: list[str], condition: str = "") -> None:
        """Open the comparison of what the names stand for, at one of its conditions; "" is the first."""
        from cerank.tui.comparison.compare_screen import CompareScreen

        short_names = {entry.name: entry.short_name for entry in self.entries}
        named = []
        for target in targets:
            run, colon, stage = target.partition(":")
            named.append(f"{short_names.get(run) or run}{colon}{stage}")
        self.push_screen(CompareScreen(self.lab, named, condition))

    def open_run(self, name: str) -> None:
        """Open a run by its id."""
        from cerank.tui.runs.run_screen import RunScreen

        self.push_screen(RunScreen(name))

    def open_recipe(self, name: str) -> None:
        """Open the form of a new run with a shipped recipe in it."""
        from cerank.tui.new_run.new_run_screen import NewRunScreen

        self.push_screen(NewRunScreen(self.lab, name))

    def open_new(self, recipe: Recipe | None = None) -> None:
        """Open the form of a new run, filled in from a recipe where one is given."""
        from cerank.tui.new_run.new_run_screen import NewRunScreen

        self.push_screen(NewRunScreen(self.lab, recipe=recipe))

    def open_example(self) -> None:
        """Open the form of a new run with the example in it, at its last step: one key launches it."""
        from cerank.tui.new_run.new_run_screen import DEFAULT, NewRunScreen

        screen = NewRunScreen(self.lab, DEFAULT)
        self.push_screen(screen)
        screen.call_after_refresh(lambda: screen.action_step("launch"))

    def action_help(self) -> None:
        """Show what the keys do on the screen in front."""
        from cerank.tui.common.help_screen import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.screen))

    def action_picture(self) -> None:
        """Write the screen as it is to an SVG file in the folder of exports."""
        name = f"cerank-{datetime.now().astimezone():%Y%m%d-%H%M%S}.svg"
        path = self.files / name

        def take() -> None:
            picture = self.export_screenshot(title="cerank")
            self.run_in_thread(
                lambda: export_comparison.save(picture, path),
                lambda written: self.show_message(f"wrote {written}"),
                group="picture",
            )

        self.clear_notifications()
        self.call_after_refresh(take)

    def action_record(self) -> None:
        """Record the screen to an asciicast file in the folder of exports, or end the recording."""
        if self._recording is not None:
            self._end_recording()
            return
        from cerank.tui.common.recording import FRAME_SECONDS, Recording

        self.clear_notifications()
        path = self.files / f"cerank-{datetime.now().astimezone():%Y%m%d-%H%M%S}.cast"
        try:
            self._recording = Recording(path.absolute(), self.size)
        except CerankError as error:
            self.show_error(error)
            return
        self.is_recording = True
        self._frame_timer = self.set_interval(FRAME_SECONDS, self._record_frame)
        self.call_after_refresh(self._record_frame)

    def _record_frame(self) -> None:
        from cerank.tui.common.recording import lines_of

        if self._recording is not None:
            try:
                self._recording.take_frame(lines_of(self), self.size)
            except CerankError as error:  # such as a full disk
                self.show_error(error)
                self._close_recording()

    def _end_recording(self) -> None:
        """Record what is seen now, then close the file and say where it is."""
        self._record_frame()
        self._close_recording()

    def _close_recording(self) -> None:
        recording, self._recording = self._recording, None
        if recording is None:
            return
        self.is_recording = False
        if self._frame_timer is not None:
            self._frame_timer.stop()
        try:
            recording.finish()
        except CerankError as error:
            self.show_error(error)
            return
        if self.is_running:
            self.show_message(f"wrote {recording.path}")

    def on_unmount(self) -> None:
        """Close a recording, and the line to a lab on another machine, when the dashboard ends."""
        self._close_recording()
        self.access.close()

    def action_interrupt(self) -> None:
        """Copy the selection; where there is none, say how to leave, and leave when pressed again at once."""
        selected = self.screen.get_selected_text()
        if not selected and isinstance(self.focused, Input):
            selected = self.focused.selected_text
        if selected:
            self.copy_text(selected, "the selection")
            self.screen.clear_selection()
            return
        now = time.monotonic()
        if now - self._interrupted_at < _TWICE:
            self.exit(self.farewell())
            return
        self._interrupted_at = now
        self.show_message("Press q to leave (or ctrl+c again). Runs continue, and forms are kept as drafts.")

    async def action_quit(self) -> None:
        """Leave; ask only where something would be lost."""
        from cerank.tui.cells import joined
        from cerank.tui.common.dialogs import ConfirmDialog

        lost = next(
            (text for screen in self.screen_stack if isinstance(screen, LabScreen) and (text := screen.unsaved_work())),
            "",
        )
        if not lost:
            self.exit(self.farewell())
            return
        question = joined(lost, (" Leave anyway?", "bold"))
        self.push_screen(ConfirmDialog(question, "Leave"), lambda yes: self.exit(self.farewell()) if yes else None)

    def farewell(self) -> str:
        """Return how many jobs keep running; "" for none."""
        live = sum(entry.is_live for entry in self.entries)
        queued = sum(entry.state == "queued" for entry in self.entries)
        parts = [f"{live} job{'s' * (live != 1)} keep{'s' * (live == 1)} running"] if live else []
        parts += [f"{queued} wait{'s' * (queued == 1)} in the queue"] if queued else []
        return ", ".join(parts)

    def get_system_commands(self, screen: Screen[Any]) -> Any:
        """Return the palette: every key of the screen in front, then Textual's own commands."""
        from cerank.tui.common.help_screen import commands_of

        for title, text, run in commands_of(screen):
            yield SystemCommand(title, text, run)
        textuals_own = {"Theme", "Maximize", "Minimize"}
        yield from (command for command in super().get_system_commands(screen) if command.title in textuals_own)
        for entry in reversed(self.entries):
            text = "  ".join(part for part in (entry.state, entry.recipe, entry.base, f"seed {entry.seed}") if part)
            yield SystemCommand(words(f"Run {entry.title}"), words(text), partial(self.open_run, entry.name))
        for name in shipped():
            yield SystemCommand(f"Recipe {name}", "A new run of this recipe", partial(self.open_recipe, name))


def _warm_up() -> None:
    """Import what the next screens need (NumPy takes 0.1 s) in a thread, so that opening them does not halt a frame."""
    import cerank.tui.new_run.new_run_screen
    import cerank.tui.runs.run_screen  # noqa: F401 - for its side effect


def run(lab: Lab, name: str = "", access: LabAccess | None = None) -> str:
    """Run the dashboard until the user leaves; return the message to print then.

    Args:
        lab: the lab.
        name: id of a run to open at once; "" opens the list of runs.
        access: how the lab is listed and changed; default: as a folder of this machine.
    """
    return CerankApp(lab, open_at=name, access=access).run() or ""
