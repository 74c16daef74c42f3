"""What a draft comes to, in words: how many runs, how much work, which commands, or what is wrong.

Invariant: pure text from what the library said; no count is made here that decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from textual.content import Content

from cerank.app import estimates
from cerank.app.comparison.named_systems import short_name
from cerank.app.matrix.drafts import CheckedDraft, Draft, DraftRun, FieldError, RecipeSource
from cerank.app.matrix.matrix_planning import PlannedMatrix
from cerank.models.bases import BASES
from cerank.text.safe_text import counted
from cerank.tui.cells import content, joined, stacked
from cerank.tui.common.form_fields import ERROR_SIGN, WARNING_SIGN, ChecklistItem, fitting_middle

_MOST_NAMES = 3  # of runs that are finished already
_LONGEST_PART = 44  # cells of the name of a part of the work
MOST_COMMANDS = 3  # shown; those of a matrix are nearly alike, and copying takes all


class LaunchState(msgspec.Struct, frozen=True):
    """How far the launch of a draft has come."""

    errors: tuple[FieldError, ...]
    warnings: tuple[FieldError, ...]
    matrix: PlannedMatrix | None
    refusal: str
    is_planning: bool
    finished: tuple[str, ...] = ()  # finished runs of the lab whose plans are the same as one of these


def base_items(is_local: Mapping[str, bool], *, is_offline: bool = False) -> list[ChecklistItem]:
    """Return the bases to choose from: parameters, license, and whether each is on this disk.

    Args:
        is_local: whether a base is on this disk; a base that is not in it is not looked up yet.
        is_offline: whether none can be downloaded.
    """
    absent = "✖ not here, offline" if is_offline else "↓ to download"
    items = []
    for name, base in BASES.items():
        where = {True: "✔ on this disk", False: absent, None: "…"}[is_local.get(name)]
        figures = f"{base.parameters:>6}  {base.license:<11} "
        items.append(
            ChecklistItem(name, joined(f"{name:<11}", (figures, "dim"), f"{where:<19} ", (base.hub_id, "dim")))
        )
    return items


def recipe_items(known: Mapping[str, RecipeSource]) -> list[ChecklistItem]:
    """Return the recipes to choose from, with their chains; those of the user's own with their file."""
    items = []
    for source, recipe_source in known.items():
        place = "" if source == recipe_source.name else f"  {source}" if recipe_source.source else "  not saved"
        chain = " → ".join(recipe_source.recipe.chain)
        items.append(
            ChecklistItem(
                source,
                joined(
                    recipe_source.name,
                    (place, "$accent"),
                    ("" if recipe_source.name == source else f"  {chain}", "dim"),
                ),
            )
        )
    return items


def step(number: int, name: str, wrong: int, *, is_now: bool) -> Content:
    """Return a step's number and name, and how much is wrong in it."""
    mark = f" {ERROR_SIGN}{wrong}" if wrong else ""
    return joined((f" {number} {name} ", "bold $primary reverse" if is_now else ""), (mark, "bold $error"))


def runs(count: int) -> str:
    """Return `count` runs in words."""
    return f"{count} run{'s' * (count != 1)}"


def launch_question(matrix: PlannedMatrix) -> Content:
    """Return the question whether to start what was planned, with its work."""
    took = f", about {estimates.format_minutes(matrix.minutes)}" if matrix.minutes is not None else ""
    return stacked(
        joined("Start ", (runs(len(matrix.plans)), "bold"), "?"),
        content(""),
        content(f"At most {matrix.pairs:,} pairs through the model{took}. A run waits in the queue for a free device."),
    )


def outcome(
    draft: Draft,
    checked: CheckedDraft,
    matrix: PlannedMatrix | None,
    errors: Sequence[FieldError],
    *,
    is_at_launch: bool = False,
) -> Content:
    """Return one line: the number of runs and what they are made of, or the first mistake."""
    if errors:
        first, more = errors[0], len(errors) - 1
        others = f"  (and {more} more)" if more else ""
        return joined((f"{ERROR_SIGN} {first.path}: ", "bold $error"), first.text, (others, "dim"))
    cells = checked.cells
    bases, seeds = len({cell.recipe.base for cell in cells}), len({cell.recipe.seed for cell in cells})
    parts = [(bases, "base"), (len(draft.sources), "recipe"), (seeds, "seed")]
    folds = len({cell.fold for cell in cells})
    if folds > 1 and bases * len(draft.sources) * seeds * folds == len(cells):
        parts.append((folds, "fold"))
    product = " × ".join(f"{count} {word}{'s' * (count != 1)}" for count, word in parts)
    to_come = " · the work is being computed …" if is_at_launch else " · l shows the work, then starts it"
    rest = f" · at most {matrix.pairs:,} pairs through the model" if matrix else to_come
    rest += f", about {estimates.format_minutes(matrix.minutes)}" if matrix and matrix.minutes is not None else ""
    return joined((runs(len(cells)), "bold $success"), f" = {product}", (rest, "dim"))


def first_command(checked: CheckedDraft, errors: Sequence[FieldError]) -> Content:
    """Return one line: the command of the first run."""
    if errors or not checked.cells:
        return content("Fix this error to see the command.", "dim")
    more = sum(bool(cell.command) for cell in checked.cells) - 1
    return joined((f"(1 of {more + 1}) " if more else "", "dim"), ("$ ", "dim"), checked.cells[0].command)


def grid(cells: Sequence[DraftRun]) -> Content:
    """Return the runs as a grid: a line for each recipe, with the number of seeds on each base; "" for a single run."""
    if len(cells) < 2:
        return content("")
    bases = list(dict.fromkeys(cell.recipe.base for cell in cells))
    counts: dict[str, dict[str, int]] = {}
    for cell in cells:
        of_recipe = counts.setdefault(cell.recipe.name, dict.fromkeys(bases, 0))
        of_recipe[cell.recipe.base] += 1
    seeds = sorted({cell.recipe.seed for cell in cells})
    listed = ", ".join(map(str, seeds[:10])) + (f", … {seeds[-1]}" if len(seeds) > 10 else "")
    width = max(map(len, counts)) + 2
    lines = []
    for name, row in counts.items():
        texts = [f"{base.rpartition('/')[2]} × {count}" for base, count in row.items() if count]
        lines.append(joined(f"{name:<{width}}", "   ".join(texts)))
    return stacked(joined(("Runs by recipe and base", "bold $primary"), (f"   seeds {listed}", "dim")), *lines)


def commands(cells: Sequence[DraftRun]) -> Content:
    """Return the commands: one a run, of which one makes the runs of all folds."""
    if not cells:
        return content("")
    lines_of = [cell.command for cell in cells if cell.command]
    more = len(lines_of) - MOST_COMMANDS
    rest = [content(f"… and {more} more; y copies all", "dim")] if more > 0 else []
    lines = [joined(("$ ", "dim"), command) for command in lines_of[:MOST_COMMANDS]]
    return stacked(content("Equivalent commands", "bold $primary"), *lines, *rest)


def work(state: LaunchState, room: int = 120) -> Content:
    """Return the work part by part, or why nothing can be launched.

    Args:
        state: how far the launch has come.
        room: cells of a line; long names of parts lose their middle so that none is broken.
    """
    if state.refusal:
        return joined((f"{ERROR_SIGN} not launched: ", "bold $error"), state.refusal)
    if state.errors:
        lines = [joined((f"{ERROR_SIGN} {error.path}: ", "bold $error"), error.text) for error in state.errors]
        return stacked(content("Fix these errors before launching", "bold $error"), *lines)
    if state.matrix is None:
        return content("reading the inputs and computing their checksums …" if state.is_planning else "", "dim")
    matrix = state.matrix
    is_assumed = any(part.part.startswith("choose ") for part in matrix.work)
    title = "Work (estimate)" if is_assumed else "Work (upper bound)"
    figures = [
        ("steps, queries", "pairs", "time"),
        *((f"{part.units:,}", f"{part.pairs:,}", _time(part.minutes)) for part in matrix.work),
        ("", f"{matrix.pairs:,}", _time(matrix.minutes)),
    ]
    sizes = [max(map(len, column)) for column in zip(*figures, strict=True)]
    longest = max(len(title), min(_LONGEST_PART, room - sum(sizes) - 2 * len(sizes)))
    names = [title, *(_named(part.part, longest) for part in matrix.work), "all runs"]
    width = max(map(len, names))
    lines = [
        "  ".join([f"{name:<{width}}", *(f"{text:>{size}}" for text, size in zip(row, sizes, strict=True))])
        for name, row in zip(names, figures, strict=True)
    ]
    head = content(lines[0], "bold $primary")
    rows = [*map(content, lines[1:-1]), content(lines[-1], "bold")]
    if matrix.shared:
        spared = sum(part.pairs for part in matrix.shared)
        rows.append(content(f"{counted(spared, 'pair')} are shared with other runs and computed once", "dim"))
    if matrix.minutes is None:
        rows.append(
            content("–: no estimate yet: this base model has not run here; cerank bench measures it in a minute", "dim")
        )
    ready = joined(
        ("✔ ready: ", "bold $success"), ("l", "bold $primary"), f" starts {runs(len(matrix.cells))} as devices get free"
    )
    rows += [content("")] if state.finished else []
    if state.finished:
        count, more = len(state.finished), ", …" if len(state.finished) > _MOST_NAMES else ""
        names = ", ".join(state.finished[:_MOST_NAMES]) + more
        what = "An identical run is finished" if count == 1 else f"{count} identical runs are finished"
        rows.append(
            joined((f"{WARNING_SIGN} {what}: ", "bold $warning"), names, ("; a new one gives its figures", "dim"))
        )
    doubts = [joined((f"{WARNING_SIGN} {warning.path}: ", "bold $warning"), warning.text) for warning in state.warnings]
    return stacked(head, *rows, content(""), *doubts, ready)


def _time(minutes: float | None) -> str:
    return "–" if minutes is None else estimates.format_minutes(minutes)


def _named(part: str, longest: int) -> str:
    """Return a part of the work as the table names it.

    The last part of each path, the middle left out of what is long.
    """
    return fitting_middle(" ".join(short_name(word) for word in part.split(" ")), longest)
