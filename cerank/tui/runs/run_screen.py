"""One run: its curves, plan, log, results, rankings and the machine, a tab each; others of the lab beside it."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.events import Click, Resize
from textual.widgets import ContentSwitcher, Static

from cerank.app.comparison import export_comparison
from cerank.app.run_views import display, run_list
from cerank.app.run_views.display import GLYPHS, clock, count, short
from cerank.app.run_views.run_monitor import RunEntry
from cerank.tui.cells import joined
from cerank.tui.common import run_actions
from cerank.tui.common.key_footer import KeyFooter
from cerank.tui.common.lab_screen import LabScreen
from cerank.tui.common.status_bar import StatusBar
from cerank.tui.runs.curves_pane import CurvesPane
from cerank.tui.runs.log_pane import LogPane
from cerank.tui.runs.run_pane import RunPane
from cerank.tui.runs.run_table import RunTable
from cerank.tui.theme import state_color

_ROOM_FOR_LIST = 160  # columns from which the list of runs is shown beside a run
TABS = ("Curves", "Plan", "Log", "Results", "Rankings", "System")


class TabLine(Static):
    """The names of the tabs in one line, the one in front set off; a click opens one."""

    DEFAULT_CSS = "TabLine { height: 1; padding: 0 1; background: $surface; }"

    def show(self, front: int) -> None:
        """Set one tab off."""
        parts = [(f" {place} {name} ", "reverse bold" if place == front else "") for place, name in enumerate(TABS, 1)]
        self.update(joined(*parts))

    async def on_click(self, event: Click) -> None:
        """Open the tab under the pointer."""
        left = event.x - 1
        for place, name in enumerate(TABS, 1):
            left -= len(name) + 4
            if left < 0:
                await self.screen.run_action(f"tab({place})")
                return


class RunScreen(LabScreen):
    """A run, in tabs; reads only for the tab in front."""

    AUTO_FOCUS = "#tab-1"
    HELP_TITLE = "a run"
    WATCHES: ClassVar[tuple[str, ...]] = ("polls", "marked")  # its tabs read on at every poll
    CSS = """
    RunScreen #beside { width: 36; border-right: solid $panel; display: none; }
    RunScreen.-listed #beside { display: block; }
    RunScreen #where { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    RunScreen ContentSwitcher { height: 1fr; }
    RunScreen.-tall.-wide CurvesPane Grid { display: block; }
    RunScreen.-tall.-wide CurvesPane.-single Grid { display: none; }
    RunScreen.-tall RankingsPane VerticalScroll { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(place), f"tab({place})", name.lower(), id=f"run.tab-{place}", show=False)
          for place, name in enumerate(TABS, 1)),
        Binding("s", "stop", "stop", id="run.stop", tooltip="Stop after the current step, with a checkpoint"),
        Binding("r", "resume", "resume", id="run.resume"),
        Binding("less_than_sign,comma", "other(-1)", "previous run", key_display="<", id="run.before", show=False),
        Binding("greater_than_sign,full_stop", "other(1)", "next run", key_display=">", id="run.next", show=False),
        Binding("space", "mark", "mark", id="run.mark", show=False, tooltip="Mark this run, to overlay or compare it"),
        Binding("m", "compare", "compare", id="run.compare", tooltip="Compare the marked runs"),
        Binding("c", "clone", "clone", id="run.clone", show=False),
        Binding("t", "note", "label", id="run.note", show=False, tooltip="Change label and tags"),
        Binding("N", "edit_note", "note", id="run.edit-note", show=False,
                tooltip="Write a note on this run, in Markdown, in $VISUAL or $EDITOR"),
        Binding("n", "new", "new", id="run.new", show=False),
        Binding("B", "book", "lab book", id="run.book", show=False,
                tooltip="Open the lab book; a new entry keeps the verdicts of this run"),
        Binding("y", "copy", "copy", id="run.copy", show=False, tooltip="Copy what the tab shows"),
        Binding("e", "export", "export", id="run.export", show=False, tooltip="Write what the tab shows to a file"),
        Binding("w", "list", "list beside", id="run.list", show=False, tooltip="Show or hide the list of runs"),
        Binding("escape", "back", "back", id="run.back"),
    ]  # fmt: skip

    def __init__(self, name: str) -> None:
        super().__init__()
        self._run_name = name
        self._title = name  # until it was seen
        self._front = 1
        self._state = ""
        self._brought: tuple[str, ...] = ()  # run, state and stage whose results can be read here
        self._is_bringing = False
        self._is_listed: bool | None = None  # whether the list is shown beside; None: where there is room

    def compose(self) -> ComposeResult:
        """Lay out the other runs beside, the tabs, the tab in front."""
        yield StatusBar()
        with Horizontal():
            with Vertical(id="beside"):
                yield RunTable(is_narrow=True, id="others")
            with Vertical():
                yield Static(id="where")
                yield TabLine()
                with ContentSwitcher(initial="tab-1"):
                    yield CurvesPane(id="tab-1")
        yield KeyFooter()

    def on_mount(self) -> None:
        """Bring the first tab to the front."""
        self.query_one(TabLine).show(1)
        self.query_one(RunTable).highlight(self._run_name)
        if self.lab_app.access.is_remote:
            self.lab_app.poll()  # its files are not here yet

    def on_resize(self, event: Resize) -> None:
        """Show the list of runs beside this one where there is room, or where the user asked for it."""
        is_roomy = event.size.width >= _ROOM_FOR_LIST
        self.set_class(is_roomy if self._is_listed is None else self._is_listed, "-listed")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - Textual's
        """Offer to stop or resume only a run that can be."""
        entry = self.entry
        if entry is None or action not in {"stop", "resume"}:
            return True
        if action == "stop":
            return entry.is_live or entry.state == "queued"
        return entry.state in {"waiting", "paused", "lost", "failed"}

    def action_list(self) -> None:
        """Show the list of runs beside this one, or hide it."""
        self._is_listed = not self.has_class("-listed")
        self.set_class(self._is_listed, "-listed")

    # showing

    @property
    def entry(self) -> RunEntry | None:
        """Return the run that is shown; None once it is deleted."""
        return next((entry for entry in self.lab_app.entries if entry.name == self._run_name), None)

    def show_runs(self, entries: tuple[RunEntry, ...]) -> None:
        """Show the run as it is now."""
        entry = self.entry
        if entry is None:
            if self.lab_app.has_loaded:
                self.lab_app.show_message(f"{self._title} was deleted", "warning")
                self.app.pop_screen()
            return
        self._title = entry.title
        if entry.state != self._state:
            self._state = entry.state
            self.refresh_bindings()
        self.query_one("#where", Static).update(self._where(entry))
        self.query_one(RunTable).show(entries[::-1], frozenset(self.lab_app.marked))
        pane = self._pane()
        if pane is not None and self._has_files(entry):
            pane.show_entry(entry)

    def followed_runs(self) -> tuple[str, ...]:
        """Return the run that is shown, and those whose curves may be drawn over its own."""
        return (self._run_name, *self.lab_app.marked)

    def _has_files(self, entry: RunEntry) -> bool:
        """Return whether the tab in front can read what it shows; rankings in a lab elsewhere are copied first."""
        access, key = self.lab_app.access, (entry.name, entry.state, entry.stage)
        if not access.is_remote or TABS[self._front - 1] not in {"Results", "Rankings"} or key == self._brought:
            return True
        if not self._is_bringing and not self.lab_app.dropped:
            self._is_bringing = True

            def brought(_: None) -> None:
                self._brought = key
                self.show_runs(self.lab_app.entries)

            def over() -> None:
                self._is_bringing = False

            bring = partial(access.bring, (entry.name,), "results")
            self.lab_app.run_in_thread(bring, brought, node=self, group="bring", last=over)
        return False

    def _where(self, entry: RunEntry) -> Content:
        """Return the line about the run: as many whole parts as fit, what matters first."""
        color = state_color(entry.state, is_dark=self.app.current_theme.dark)
        mark = "● " if entry.name in self.lab_app.marked else ""
        state, name = f"{GLYPHS[entry.state]} {entry.state}", f"{mark}{entry.short_name or entry.name}"
        parts = [entry.why] if entry.state in {"failed", "damaged"} else []
        parts += [_time_of(entry)] if entry.is_live else []
        parts += [entry.at]
        parts += [f"{count(entry.pairs_per_second)} pairs/s"] if entry.pairs_per_second else []
        parts += [f"{entry.final[0]} {short(entry.final[1])} on {run_list.first_test(entry)}"] if entry.final else []
        parts += [f"{entry.validated[0]} {short(entry.validated[1])} on validation"] if entry.validated else []
        parts += ["r resumes it"] if entry.state in {"paused", "lost"} else []
        parts += [entry.label, entry.recipe, entry.base, f"seed {entry.seed}"]
        room = (self.size.width or self.app.size.width) - 2 - len(state) - len(name) - 2
        shown: list[str] = []
        for part in parts:
            if part and len(part) + 2 <= room:
                shown.append(part)
                room -= len(part) + 2
        return joined((f"{state}  ", color), (name, "bold"), *(f"  {part}" for part in shown))

    def _pane(self) -> RunPane | None:
        pane = self.query(f"#tab-{self._front}").first()
        return pane if isinstance(pane, RunPane) else None

    # actions

    async def action_tab(self, place: int) -> None:
        """Bring a tab to the front; it is made when it is first wanted."""
        switcher = self.query_one(ContentSwitcher)
        if not self.query(f"#tab-{place}"):
            pane = _made(place)
            await switcher.add_content(pane, set_current=False)
        switcher.current = f"tab-{place}"
        self._front = place
        self.query_one(TabLine).show(place)
        front = self.query_one(f"#tab-{place}", RunPane)
        (front if front.can_focus else front.query(".front").first()).focus()
        self.show_runs(self.lab_app.entries)
        self.refresh_bindings()

    def on_row_list_selected(self, event: RunTable.Selected) -> None:
        """Show the run that was chosen in the list beside."""
        if event.row_list.id == "others":
            entry = self.query_one("#others", RunTable).highlighted
            if entry is not None:
                self._turn_to(entry.name)

    def action_other(self, by: int) -> None:
        """Show the run before or after, in the order of the list."""
        names = [entry.name for entry in self.lab_app.entries[::-1]]
        if self._run_name in names:
            self._turn_to(names[(names.index(self._run_name) + by) % len(names)])

    def _turn_to(self, name: str) -> None:
        self._run_name = name
        self.query_one(RunTable).highlight(name)
        self.show_runs(self.lab_app.entries)

    def action_mark(self) -> None:
        """Mark the run that is highlighted beside, or the one that is shown."""
        table = self.query_one(RunTable)
        entry = table.highlighted if table.has_focus and table.highlighted else self.entry
        if entry is not None:
            self.lab_app.toggle_mark(entry.name)

    def action_compare(self) -> None:
        """Compare the marked runs, or the stages of this one."""
        if len(self.lab_app.marked) < 2:
            self.lab_app.show_message(
                "Mark at least two runs with space. Tab 4 compares the stages of this run.", "warning"
            )
            return
        run_actions.compare_marked(self)

    def action_new(self) -> None:
        """Open the form of a new run."""
        self.lab_app.open_new()

    def action_clone(self) -> None:
        """Open the form of a new run with this one's recipe."""
        if self.entry is not None:
            run_actions.clone(self, self.entry)

    def action_stop(self) -> None:
        """Ask, then stop the run."""
        if self.entry is not None:
            run_actions.stop(self, [self.entry])

    def action_resume(self) -> None:
        """Resume the run."""
        if self.entry is not None:
            run_actions.resume(self, [self.entry])

    def action_note(self) -> None:
        """Ask for a label and tags."""
        if self.entry is not None:
            run_actions.edit_label(self, self.entry)

    def action_edit_note(self) -> None:
        """Open the note on the run in the user's editor."""
        if self.entry is not None:
            run_actions.edit_note(self, self.entry)

    def action_book(self) -> None:
        """Open the lab book."""
        from cerank.tui.runs.book_screen import BookScreen

        if refusal := self.lab_app.access.refusal("The lab book"):
            self.lab_app.show_message(refusal, "warning")
            return
        entry = self.entry
        self.app.push_screen(BookScreen([entry.short_name] if entry is not None and entry.finals else []))

    def action_copy(self) -> None:
        """Copy what the tab shows, or the run's name."""
        pane = self._pane()
        copied = pane.copied() if pane else None
        self.lab_app.copy_text(*(copied or (self._run_name, "the run's name")))

    def action_export(self) -> None:
        """Write what the tab shows."""
        pane = self._pane()
        exported = pane.exported() if pane else None
        if exported is None:
            self.lab_app.show_message("This tab has nothing to export.", "warning")
            return
        text, name = exported
        self.run_in_thread(
            lambda: export_comparison.save(text, self.lab_app.files / name, replace=True),
            lambda path: self.lab_app.show_message(f"wrote {path}"),
            group="export",
        )

    def action_back(self) -> None:
        """Go back to the list."""
        self.app.pop_screen()


def _time_of(entry: RunEntry) -> str:
    """Return the share of the run that is done, the time left and when it ends: "62 %, 5:03 left, ends 14:21"."""
    share = "" if entry.run_share is None else f"{100 * entry.run_share:.0f} % of the run"
    left = clock(entry.seconds_left)
    end = (display.now() + timedelta(seconds=entry.seconds_left)).astimezone()
    of_what = "" if entry.run_share is not None else " of this part"
    return ", ".join(part for part in (share, f"{left} left{of_what}, ends {end:%H:%M}" if left else "") if part)


def _made(place: int) -> RunPane:
    """Return a tab's content; imported only now."""
    name = f"tab-{place}"
    if TABS[place - 1] == "Plan":
        from cerank.tui.runs.plan_pane import PlanPane

        return PlanPane(id=name)
    if TABS[place - 1] == "Results":
        from cerank.tui.runs.results_pane import ResultsPane

        return ResultsPane(id=name)
    if TABS[place - 1] == "Rankings":
        from cerank.tui.runs.rankings_pane import RankingsPane

        return RankingsPane(id=name)
    if TABS[place - 1] == "System":
        from cerank.tui.runs.system_pane import SystemPane

        return SystemPane(id=name)
    return LogPane(id=name)
