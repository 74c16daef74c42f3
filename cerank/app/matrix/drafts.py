"""A draft of a run, or of a matrix of bases x recipes x seeds: what was chosen, as text, and what is wrong with it.

Invariant: the same draft gives the same errors, runs and commands wherever it is typed; no file is written here but
the recipe that the user asks for.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from cerank import recipes
from cerank.app import plans
from cerank.app.matrix import recipe_form
from cerank.app.matrix.fold_recipes import fold_recipes
from cerank.core import decode
from cerank.datasets.open_datasets import DatasetEntry, catalog, search
from cerank.errors import CerankError, RecipeError
from cerank.models.bases import BASES
from cerank.recipes.recipe_checks import recipe_from
from cerank.recipes.schema import Recipe
from cerank.registry import nearest
from cerank.runs.layout import plain_name
from cerank.settings import Flags, device_mistake, resolve

MOST_RUNS = 500  # a matrix of more is a slip of the keyboard
MOST_SEEDS = 100
UNUSUAL = 50.0  # factor between a setting and the recipe's own from which the form asks whether it is meant
MOST_FOLDERS = 50  # listed for a path


class RecipeSource(msgspec.Struct, frozen=True):
    """Where a recipe of the draft comes from."""

    name: str  # what tables call it
    table: dict[str, object]  # as TOML gives it, parents merged
    toml: bytes  # as given
    source: str  # for --recipe; "" where no file holds it yet
    recipe: Recipe  # as it stands, nothing changed


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What the user has chosen and typed so far; `settings` hold only what differs from the recipes' own."""

    sources: tuple[RecipeSource, ...] = ()
    bases: tuple[str, ...] = ()  # empty takes each recipe's own
    seeds: str = ""  # "42, 43" or "1-5"; "" takes each recipe's own
    settings: dict[str, str] = {}  # key path -> text; a stage's go to every recipe that has a stage of that name
    device: str = ""  # "" takes the settings' own
    label: str = ""
    lab: str = ""  # for --lab; "" where the command would find the lab by itself


class FieldError(msgspec.Struct, frozen=True):
    """An error in a field of the form; `path` is a key path, or "recipes", "base", "seeds", "device" or "label"."""

    path: str
    text: str


class DraftRun(msgspec.Struct, frozen=True):
    """One run of the matrix."""

    recipe: Recipe
    given: bytes  # the recipe's own TOML; empty where the draft changes it
    label: str
    command: str  # the same by the command line; of several folds, which one command makes, only the first has it
    levels: dict[str, str] = {}  # factor -> level, in a matrix with factors
    varied: str = ""  # the recipe's name without the levels; "" in a matrix without factors
    fold: int = 0  # that it is tested on, from 1; 0 without folds
    divided: Recipe | None = None  # what the recipes of all folds were made of; None without folds

    @property
    def declared(self) -> Recipe:
        """Return the recipe as it was chosen: of a fold, that of all folds together."""
        return self.divided or self.recipe

    @property
    def toml(self) -> bytes:
        """Return the recipe as the run keeps it."""
        return self.given or recipes.render(self.recipe).encode()


class CheckedDraft(msgspec.Struct, frozen=True):
    """A draft looked at: the runs it stands for, or what is wrong with it (never both)."""

    cells: tuple[DraftRun, ...] = ()
    errors: tuple[FieldError, ...] = ()
    warnings: tuple[FieldError, ...] = ()  # what is allowed, but looks like a slip of the keyboard


class _ChosenRecipe(msgspec.Struct, frozen=True):
    """One recipe of the draft with the draft's settings laid over it."""

    source: RecipeSource
    overrides: tuple[tuple[str, object], ...]  # (key path, value), those that this recipe has a place for
    recipe: Recipe


def recipe_source(name_or_path: str) -> RecipeSource:
    """Return a shipped recipe, or one in a `.toml` file; raises as `recipes.load`."""
    loaded = recipes.load(name_or_path)
    return RecipeSource(loaded.recipe.name, loaded.merged, loaded.toml, name_or_path, loaded.recipe)


def unsaved_recipe_source(recipe: Recipe) -> RecipeSource:
    """Return a recipe that no file holds, such as that of a run; it has to be saved before a command can name it."""
    toml = recipes.render(recipe).encode()
    return RecipeSource(recipe.name, decode.toml_table(toml, recipe.name), toml, "", recipe)


def first_draft(recipe: Recipe | str, instead: str) -> tuple[Draft, CerankError | None]:
    """Return the draft that a form opens with: of a recipe, a name or a path.

    Of `instead`, and why, if it cannot be.
    """
    try:
        if isinstance(recipe, Recipe):
            return draft_of(recipe), None
        start, why = recipe_source(recipe), None
    except CerankError as error:
        start, why = recipe_source(instead), error
    return Draft(sources=(start,), bases=(start.recipe.base,)), why


def draft_of(recipe: Recipe) -> Draft:
    """Return the draft that asks for exactly `recipe`.

    The nearest shipped recipe and what differs, else the recipe itself.
    """
    best: Draft | None = None
    for name in recipes.shipped():
        draft = as_changes(recipe_source(name), recipe)
        if draft and (best is None or len(draft.settings) < len(best.settings)):
            best = draft
    if best:
        return best
    return Draft(sources=(unsaved_recipe_source(recipe),), bases=(recipe.base,), seeds=str(recipe.seed))


def as_changes(start: RecipeSource, recipe: Recipe) -> Draft | None:
    """Return `recipe` as changes to `start`; None where it is no such thing."""
    own, target = recipe_form.texts(start.recipe), recipe_form.texts(recipe)
    if own.keys() != target.keys():
        return None
    settings = {path: text for path, text in target.items() if text != own[path]}
    draft = Draft(sources=(start,), bases=(recipe.base,), seeds=str(recipe.seed), settings=settings)
    cells = check_draft(draft).cells
    return draft if cells and all(cell.declared == recipe for cell in cells) else None


# --- what is wrong


def check_draft(draft: Draft, *, is_elsewhere: bool = False) -> CheckedDraft:
    """Return the runs of the draft, or every mistake in it that shows without opening a dataset or model.

    Quick enough for every key typed: some milliseconds a recipe.

    Args:
        draft: what was chosen and typed.
        is_elsewhere: whether another machine carries the runs out, whose folders are not known here.
    """
    errors = [] if draft.sources else [FieldError("recipes", "choose at least one recipe")]
    values: dict[str, object] = {}
    for path, text in draft.settings.items():
        try:
            values[path] = recipe_form.value(path, text)
        except ValueError as error:
            errors.append(FieldError(path, str(error)))
    choices = [chosen for source in draft.sources if (chosen := _with_values(source, values, errors))]
    names = [base for base in draft.bases if not (is_elsewhere and base.startswith(("/", "~")))]
    errors += [FieldError("base", text) for base in names if (text := base_error(base))]
    seeds, wrong = seeds_in(draft.seeds)
    errors += [FieldError("seeds", wrong)] if wrong else []
    errors += [FieldError("device", text)] if draft.device and (text := device_mistake(draft.device)) else []
    errors += _duplicates(draft)
    count = max(len(draft.bases), 1) * len(draft.sources) * max(len(seeds), 1)
    if count > MOST_RUNS:
        errors.append(FieldError("seeds", f"{count:,} runs; a matrix has {MOST_RUNS} at most"))
    if errors:
        return CheckedDraft(errors=tuple(dict.fromkeys(errors)))
    try:
        cells = tuple(_runs(draft, choices, seeds))
    except CerankError as error:  # no dataset that folds could be made of
        return CheckedDraft(errors=(FieldError("data.folds", error.what),))
    if len(cells) > MOST_RUNS:
        return CheckedDraft(errors=(FieldError("seeds", f"{len(cells):,} runs; a matrix has {MOST_RUNS} at most"),))
    return CheckedDraft(cells=cells, warnings=_unusual(choices))


def _unusual(choices: Sequence[_ChosenRecipe]) -> tuple[FieldError, ...]:
    """Return a warning for each number that is far from the recipe's own, such as a learning rate of 1e3."""
    warnings: dict[str, FieldError] = {}
    for choice in choices:
        for path, value in choice.overrides:
            own = _number_at(choice.source.recipe, path)
            if not isinstance(value, int | float) or not own or value <= 0 or own <= 0:
                continue
            times = max(value / own, own / value)
            if times >= UNUSUAL:
                relation = f"{times:,.0f} times" if value > own else f"1/{times:,.0f} of"
                warnings[path] = FieldError(path, f"{value:,g} is {relation} the recipe's {own:g}; is that meant?")
    return tuple(warnings.values())


def _number_at(recipe: Recipe, path: str) -> float | None:
    """Return the number that a recipe has at a key path, its defaults included; None where there is none."""
    value: object = recipe
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _duplicates(draft: Draft) -> list[FieldError]:
    sources = [source.source or source.name for source in draft.sources]
    given = (("recipes", sources), ("base", list(draft.bases)))
    return [
        FieldError(path, f"'{name}' is chosen twice")
        for path, names in given
        for at, name in enumerate(names)
        if name in names[:at]
    ]


def base_error(name: str) -> str:
    """Return what is wrong with a base's name as far as can be seen without the hub; "" for nothing."""
    is_hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith((".", "~", "/"))
    if name in BASES or is_hub_id:
        return ""
    if "\0" in name or not name.strip():
        return "not the name of a base model"
    if "/" in name or name.startswith((".", "~")):
        folder = Path(name).expanduser()
        return "" if (folder / "config.json").is_file() else "this folder has no config.json"
    return f"no base model is called '{name}'; {nearest(name, BASES)}"


def seeds_in(text: str) -> tuple[tuple[int, ...], str]:
    """Return the seeds in "42, 43, 50-54", and what is wrong with it ("" for nothing)."""
    seeds: list[int] = []
    for part in re.split(r"[,\s]+", text.strip()) if text.strip() else []:
        match = re.fullmatch(r"([0-9]{1,19})(?:-([0-9]{1,19}))?", part)
        if not match:
            return (), f"'{part:.40}' is not a seed; give whole numbers such as 42, 43 or 1-5"
        low, high = int(match[1]), int(match[2] or match[1])
        if high < low:
            return (), f"'{part}' ends before it starts"
        if high >= 2**63:
            return (), f"{high} is too large; a seed is below 2^63"
        if high - low >= MOST_SEEDS or len(seeds) + high - low >= MOST_SEEDS:
            return (), f"at most {MOST_SEEDS} seeds"
        seeds += range(low, high + 1)
    twice = next((seed for at, seed in enumerate(seeds) if seed in seeds[:at]), None)
    return ((), f"{twice} is given twice") if twice is not None else (tuple(seeds), "")


def _with_values(start: RecipeSource, values: Mapping[str, object], errors: list[FieldError]) -> _ChosenRecipe | None:
    """Return the recipe with the values it has a place for; None, and its errors appended, where it cannot be."""
    stages = start.table.get("stages", {})
    known = stages if isinstance(stages, Mapping) else {}
    fitting = {path: value for path, value in values.items() if _stage_in(path) is None or _stage_in(path) in known}
    table = start.table
    for path, value in fitting.items():
        own = _value_at(start.table, path)
        if value is None:
            if own is not None:
                errors.append(FieldError(path, f"the recipe says {own}, which can be changed here but not left open"))
                return None
            continue
        if isinstance(value, Mapping) and isinstance(own, Mapping) and (gone := own.keys() - value.keys()):
            errors.append(
                FieldError(path, f"{', '.join(sorted(gone))} belongs to the recipe and cannot be removed here")
            )
            return None
        table = decode.merge_tables(table, _nested(path, value))
    try:
        recipe = plans.checked(recipe_from(table, start.name))
    except RecipeError as error:
        errors += [_field_error(line) for line in error.what.split("\n")]
        return None
    given = tuple((path, value) for path, value in fitting.items() if value is not None)
    return _ChosenRecipe(start, given, recipe)


def _stage_in(path: str) -> str | None:
    keys = path.split(".")
    return keys[1] if keys[0] == "stages" and len(keys) == 3 else None


def _nested(path: str, value: object) -> dict[str, object]:
    head, _, rest = path.partition(".")
    return {head: _nested(rest, value) if rest else value}


def _value_at(table: Mapping[str, object], path: str) -> object:
    """Return the value at a key path of a table; None if there is none."""
    value: object = table
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _field_error(line: str) -> FieldError:
    """Return a line `key.path: what` beside the field it is about."""
    path, _, text = line.partition(": ")
    path = re.sub(r"\[.*", "", path)
    if (
        several := re.match(r"(evaluate\.(?:margins|worth|harm))\.(.+)", path)
    ) is not None:  # one of several in a field
        path, text = several[1], f"{several[2]}: {text}"
    if re.fullmatch(r"stages\.[^.]+", path):
        return FieldError(f"{path}.steps", text)
    if text.startswith("expected ") and (expected := recipe_form.expected_at(path)):  # msgspec's word for a bound
        return FieldError(path, f"must be {expected}")
    return FieldError(path if "." in path or path in recipe_form.SCALARS else "recipes", text)


# --- what it stands for


def _runs(draft: Draft, choices: Sequence[_ChosenRecipe], seeds: Sequence[int]) -> list[DraftRun]:
    out = []
    for choice in choices:
        for base in draft.bases or (choice.recipe.base,):
            for seed in seeds or (choice.recipe.seed,):
                recipe = msgspec.structs.replace(choice.recipe, base=base, seed=seed)
                given = choice.source.toml if recipe == choice.source.recipe else b""
                label = _label(draft, recipe, many=(len(choices), len(draft.bases), len(seeds)))
                command = _command(draft, choice, recipe, label)
                if not recipe.data.folds:
                    out.append(DraftRun(recipe, given, label, command))
                    continue
                rounds = fold_recipes(recipe)
                for each in rounds:
                    named = each.label(label or recipe.name)
                    only = command if each.number == 1 else ""
                    out.append(DraftRun(each.recipe, b"", named, only, fold=each.number, divided=recipe))
    return out


def _label(draft: Draft, recipe: Recipe, many: tuple[int, int, int]) -> str:
    """Return the user's label, followed by what tells the runs of the matrix apart."""
    if not draft.label.strip():
        return ""
    parts = zip(many, (recipe.name, recipe.base.rpartition("/")[2], f"s{recipe.seed}"), strict=True)
    return " ".join([draft.label.strip(), *(part for count, part in parts if count > 1)])


def _command(draft: Draft, choice: _ChosenRecipe, recipe: Recipe, label: str) -> str:
    own = choice.source.recipe
    words = ["cerank", "run", "--recipe", choice.source.source or recipe_file(choice.source.name)]
    words += ["--base", recipe.base] if recipe.base != own.base else []
    words += ["--seed", str(recipe.seed)] if recipe.seed != own.seed else []
    overrides = dict(choice.overrides)
    data = recipe.data
    for dataset in _whole_datasets(data.train):
        if plans.parts_of(dataset) == (data.train, data.validation, data.test) and "data.train" in overrides:
            words += ["--dataset", dataset]
            overrides = {p: v for p, v in overrides.items() if p not in {"data.train", "data.validation", "data.test"}}
    if overrides.pop("data.first_stages", None) is not None:
        words += [word for name in data.first_stages for word in ("--first-stage", name)]
    if overrides.pop("data.depth", None) is not None:
        words += ["--depth", str(data.depth)]
    words += [
        word for path, value in overrides.items() for word in ("--set", f"{path}={recipe_form.toml_value(value)}")
    ]
    for option, text in (("--label", label), ("--device", draft.device), ("--lab", draft.lab)):
        words += [option, text] if text else []
    return shlex.join([*words, "--queue"])


def _whole_datasets(train: str) -> list[str]:
    """Return what --dataset might have been for this training part."""
    if train == "pydocs/train":
        return ["pydocs"]
    return [train.removesuffix("[:60%]")] if train.endswith("[:60%]") else []


def data_from(dataset: str) -> dict[str, str]:
    """Return the settings that take train, validation and test from the parts of one dataset."""
    collection = "pydocs" if dataset.startswith("pydocs/") else dataset  # it comes in three parts
    train, validation, tests = plans.parts_of(collection)
    return {"data.train": train, "data.validation": validation, "data.test": ", ".join(tests)}


def datasets_like(text: str) -> tuple[DatasetEntry, ...]:
    """Return datasets whose name holds every word of `text`, cerank's own first; a folder and those in it for a path.

    Imports ir_datasets where `text` is a word.
    """
    words = text.lower().split()
    own = [entry for entry in catalog() if all(word in entry.name for word in words)]
    if not words:
        return tuple(own)
    folder = Path(text.strip()).expanduser() if "\0" not in text else Path()
    if text.strip().startswith((".", "~", "/")):
        if not folder.is_dir():
            return ()
        inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        return tuple(DatasetEntry(str(path), "folder") for path in [folder, *inside[:MOST_FOLDERS]])
    return (*own, *search(text))


def lab_option(lab: Path, environ: Mapping[str, str], cwd: Path) -> str:
    """Return what --lab has to say for a command typed in `cwd` to use this lab; "" where it finds it by itself."""
    return "" if resolve(Flags(), environ, cwd).settings.lab.resolve() == lab.resolve() else str(lab.resolve())


def recipe_file(name: str) -> str:
    """Return the file name suggested for a recipe of that name."""
    return f"{plain_name(name)}.toml"


def file_error(path: Path) -> str:
    """Return why a file of that name cannot be a recipe; "" for nothing."""
    return "" if path.suffix == ".toml" else "the name of a recipe file must end in .toml"
