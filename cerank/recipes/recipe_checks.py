"""Read a recipe from a table, and say all that contradicts itself in it: `recipe_from`, and the checks that it makes.

A check returns its mistakes as `key.path: what`, so that all of a recipe are told at once, each with its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from cerank.core import decode
from cerank.core.negative_samplers import NEGATIVE_SAMPLERS
from cerank.errors import RecipeError, UsageError
from cerank.recipes.loss_specs import loss_mistakes
from cerank.recipes.optimizer_checks import OPTIMIZERS, optimizer_mistakes
from cerank.recipes.paths import text_of_folds
from cerank.recipes.schema import ONE_LOSS, Recipe, Stage, share_of
from cerank.recipes.sections.adapter_specs import AdapterSpec
from cerank.recipes.sections.curriculum_specs import curriculum_mistakes
from cerank.recipes.sections.filter_specs import filter_mistakes
from cerank.recipes.sections.negative_specs import FalseNegativeFilters, false_negative_mistakes, source_mistakes
from cerank.recipes.sections.passage_specs import passage_mistakes, room_mistakes
from cerank.recipes.sections.set_mixtures import is_mixture, name_of_tables, sets_of
from cerank.recipes.sections.teacher_specs import teacher_mistakes
from cerank.recipes.sections.tuning_specs import tuning_mistakes
from cerank.registry import nearest

# A step of AdamW moves a weight by the learning rate at most (some 3 times it after a jump of the gradient). A float32
# of 0.02, a weight's usual size in models such as BERT, has neighbors 1.9e-9 apart: what is less than half of that is
# rounded away. Measured: a rate of 6e-12 moves 0.5 % of the weights, by 7e-9 at most, in 1,000 steps. A step of Lion
# moves every weight by the rate.
SMALLEST_RATE = 2.0**-30


def recipe_from(values: Mapping[str, object], where: str) -> Recipe:
    """Return the recipe in a merged table (no `extends` left), complete with defaults.

    Args:
        values: the table, as TOML gives it.
        where: the file or name it came from, for the error.

    Raises:
        RecipeError: with all mistakes at once, each with its key path.
    """
    mistakes: list[str] = []
    recipe = decode.decode_table(Recipe, _with_one_form(values), "", mistakes)
    if recipe is not None:
        mistakes += _double_mistakes(values) + _uncut_mistakes(values, recipe) + _recipe_mistakes(recipe)
    if mistakes:
        mistakes += _further_mistakes(values, recipe, mistakes)
    if recipe is None or mistakes:
        hint = "`cerank recipes show NAME --full` lists every key with its default"
        raise RecipeError("\n".join(mistakes), where=where, hint=hint)
    return recipe


def _further_mistakes(values: Mapping[str, object], recipe: Recipe | None, mistakes: Sequence[str]) -> list[str]:
    """Return what else is wrong with a recipe, so that all is told at once: what would only be said without these.

    Keys that cannot be read are left out for that, and nothing is said of them a second time.
    """
    further: list[str] = []
    if recipe is None:
        recipe = decode.decode_table(Recipe, _without(_with_one_form(values), mistakes), "", [])
        if recipe is None:
            return []
        further = _recipe_mistakes(recipe)
    known = tuple(name for name in recipe.chain if name in recipe.stages)
    in_chain = msgspec.structs.replace(recipe, chain=known)
    further += loss_mistakes(in_chain) + rate_mistakes(in_chain)
    known_paths = [mistake.partition(": ")[0] for mistake in mistakes]
    paths = {mistake: mistake.partition(": ")[0] for mistake in further}
    # what is wrong with a whole table may be so for the want of a key that was left out here
    return [
        mistake for mistake, path in paths.items() if not any(f"{key}.".startswith(f"{path}.") for key in known_paths)
    ]


def _without(values: Mapping[str, object], mistakes: Sequence[str]) -> dict[str, object]:
    """Return a table without the keys that mistakes are about."""
    keys = [tuple(mistake.partition(": ")[0].partition("[")[0].split(".")) for mistake in mistakes]

    def kept(table: Mapping[str, object], above: tuple[str, ...]) -> dict[str, object]:
        return {
            key: kept(value, (*above, key)) if isinstance(value, Mapping) else value
            for key, value in table.items()
            if (*above, key) not in keys
        }

    return kept(values, ())


def _with_one_form(values: Mapping[str, object]) -> Mapping[str, object]:
    """Return a recipe's table with what has two forms in one: a mixture under its name, a number of folds as text."""
    data = values.get("data")
    if not isinstance(data, Mapping):
        return values
    forms = {"train": name_of_tables, "folds": text_of_folds}
    return {**values, "data": {key: forms[key](value) if key in forms else value for key, value in data.items()}}


def _recipe_mistakes(recipe: Recipe) -> list[str]:
    mistakes = _chain_mistakes(recipe)
    for key in ("margins", "worth", "harm"):
        mistakes += size_mistakes(getattr(recipe.evaluate, key), f"evaluate.{key}")
    for name in recipe.stages:
        if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
            mistakes.append(f"stages.{name}: a stage's name holds letters, digits, '-' and '_' only")
        if name == "first-stage":
            mistakes.append(f"stages.{name}: what is re-ranked is called that; give the stage another name")
    if not recipe.name.strip():
        mistakes.append("name: empty; tables need a name for the recipe")
    lists = {
        "data.test": recipe.data.test,
        "data.first_stages": recipe.data.first_stages,
        "evaluate.measures": recipe.evaluate.measures,
        "baselines": recipe.baselines,
    }
    for name, entries in lists.items():
        if not entries and name != "baselines":
            mistakes.append(f"{name}: empty; name at least one")
        twice = [entry for entry, count in Counter(entries).items() if count > 1]
        mistakes += [f"{name}: '{entry}' appears twice" for entry in twice]
    mistakes += (
        tuning_mistakes(recipe.tuned, recipe.data.folds)
        + _depth_mistakes(recipe)
        + _mixture_mistakes(recipe)
        + _set_loss_mistakes(recipe)
        + _passage_mistakes(recipe)
    )
    for name in recipe.chain:
        if name in recipe.stages:
            mistakes += _stage_mistakes(name, recipe.stages[name])
    return mistakes + _adapter_mistakes(recipe) + teacher_mistakes(recipe.teachers) + _teacher_use_mistakes(recipe)


def _chain_mistakes(recipe: Recipe) -> list[str]:
    mistakes = []
    if not recipe.chain:
        mistakes.append("chain: empty; name at least one stage")
    for name in recipe.chain:
        if name not in recipe.stages:
            mistakes.append(f"chain: no stage is called '{name}'; {nearest(name, recipe.stages)}")
    if len(set(recipe.chain)) != len(recipe.chain):
        mistakes.append("chain: a stage appears twice; give the second its own name and settings")
    return mistakes


def _depth_mistakes(recipe: Recipe) -> list[str]:
    depths, deepest = recipe.evaluate.depths, recipe.data.depth
    twice = [depth for depth, count in Counter(depths).items() if count > 1]
    beyond = [depth for depth in depths if depth > deepest]
    mistakes = [f"evaluate.depths: {depth} appears twice" for depth in twice]
    if beyond:
        what = (
            f"{', '.join(map(str, beyond))} lies beyond the candidates: data.depth is {deepest}, and no more are scored"
        )
        mistakes.append(f"evaluate.depths: {what}")
    if set(depths) == {deepest}:
        mistakes.append(f"evaluate.depths: {deepest} is data.depth itself; name a smaller depth, too")
    return mistakes


def size_mistakes(sizes: Mapping[str, float | str], path: str) -> list[str]:
    """Return an error for each margin, gain or harm margin that is a text but no percentage."""
    mistakes = []
    for measure, size in sizes.items():
        try:
            share_of(size)
        except ValueError:
            what = 'neither a number nor a share of the baseline\'s mean, such as "5%"'
            mistakes.append(f"{path}.{measure}: {what}; given: {size!r:.80}")
    return mistakes


def _mixture_mistakes(recipe: Recipe) -> list[str]:
    """Return the mistakes in mixtures of training sets."""
    mistakes, data = [], recipe.data
    trained = {
        "data.train": data.train,
        **{f"stages.{name}.dataset": stage.dataset for name, stage in recipe.stages.items()},
    }
    for key, name in trained.items():
        if is_mixture(name):
            try:
                sets_of(name)
            except UsageError as error:
                mistakes.append(f"{key}: {error.what}; {error.hint}")
    if data.train_temperature and not any(map(is_mixture, trained.values())):
        mistakes.append("data.train_temperature: data.train is no mixture; leave it out")
    others = {"data.validation": (data.validation,), "data.test": data.test}
    others |= {
        f"stages.{name}.validation": (stage.validation,) for name, stage in recipe.stages.items() if stage.validation
    }
    return mistakes + [
        f"{key}: '{name}' is a mixture; only training sets can be mixed"
        for key, names in others.items()
        for name in names
        if is_mixture(name)
    ]


def _set_loss_mistakes(recipe: Recipe) -> list[str]:
    """Return the mistakes in losses that are for some sets of a mixture alone."""
    mistakes = []
    for name, stage in recipe.stages.items():
        if name not in recipe.chain or not any(part.sets for part in stage.losses):
            continue
        at, dataset = f"stages.{name}.losses", stage.dataset or recipe.data.train
        try:
            known = [entry.name for entry in sets_of(dataset)] if is_mixture(dataset) else []
        except UsageError:  # said of the mixture itself
            continue
        if not known:
            mistakes.append(f"{at}: losses have sets, and the stage trains on '{dataset}', which is no mixture")
            continue
        for number, part in enumerate(stage.losses):
            unknown = [of_set for of_set in part.sets if of_set not in known]
            mistakes += [
                f"{at}[{number}].sets: '{entry}' is no set of the mixture; {nearest(entry, known)}" for entry in unknown
            ]
            if len(set(part.sets)) < len(part.sets):
                mistakes.append(f"{at}[{number}].sets: a set appears twice")
            if part.sets and part.mean_over == "pairs":
                what = "a loss of some sets is a mean over the queries of the step, of which the sets have their shares"
                mistakes.append(f"{at}[{number}].mean_over: {what}")
        without = [entry for entry in known if not any(entry in part.sets or not part.sets for part in stage.losses)]
        mistakes += [f"{at}: no loss is for the set '{entry}'; give it one, or take it out" for entry in without]
        if all(part.teacher for part in stage.losses) and any(
            part.sets for part in stage.losses if part.teacher == stage.losses[0].teacher
        ):
            what = "groups are sampled from the lists of the first teacher, which must be for all sets"
            mistakes.append(f"{at}[0].sets: {what}; or give a loss without a teacher")
        if stage.validates_by_loss:
            what = "validation queries are of no set of the mixture, so that losses of some sets are unknown there"
            mistakes.append(f"stages.{name}.validation_loss: {what}; validate by measures")
    return mistakes


def _passage_mistakes(recipe: Recipe) -> list[str]:
    mistakes = list(passage_mistakes(recipe.passages, "passages"))
    for name, stage in recipe.stages.items():
        own, spec = f"stages.{name}.passages", recipe.passages_of(name)
        mistakes += passage_mistakes(stage.passages, own)
        at = own if stage.passages.has_passages else "passages"
        if name not in recipe.chain or not spec.has_passages:
            continue
        mistakes += room_mistakes(spec, at, max_length=stage.max_length, max_query_length=stage.max_query_length)
        if stage.max_document_length:
            what = "passages have their own length; leave it out, or take passages out"
            mistakes.append(f"stages.{name}.max_document_length: {what}")
    return mistakes


def _uncut_mistakes(values: Mapping[str, object], recipe: Recipe) -> list[str]:
    """Return an error for each stage that says it has no passages, where it takes those of the recipe all the same."""
    stages = values.get("stages")
    if not recipe.passages.has_passages or not isinstance(stages, Mapping):
        return []
    tables = {name: stage.get("passages") for name, stage in stages.items() if isinstance(stage, Mapping)}
    return [
        f'stages.{name}.passages.aggregation: "none" does not switch off the [passages] of the recipe; take that table '
        "out, and give passages to the stages that shall have them"
        for name, table in tables.items()
        if isinstance(table, Mapping) and table.get("aggregation") == "none"
    ]


def _stage_mistakes(name: str, stage: Stage) -> list[str]:
    at = f"stages.{name}"
    mistakes = []
    if (stage.steps > 0) == (stage.epochs > 0):
        mistakes.append(f"{at}: give either steps or epochs above 0, not {'both' if stage.steps else 'neither'}")
    if stage.losses:
        mistakes += _joint_mistakes(at, stage)
    elif stage.gradient_cosine_every:
        mistakes.append(f"{at}.gradient_cosine_every: needs two losses or more, in [[{at}.losses]]")
    if stage.source == "teacher" and not stage.teacher:
        mistakes.append(f'{at}.teacher: missing; source = "teacher" needs "embedding", a TREC run or permutations')
    if stage.window[0] > stage.window[1]:
        mistakes.append(f"{at}.window: starts at rank {stage.window[0]} and ends before it, at {stage.window[1]}")
    sampled = stage.by_source()[0]  # as the stage samples its groups
    if sampled.source == "labels" and stage.positives >= stage.group_size:
        mistakes.append(f"{at}.positives: {stage.positives} leave no negative in a group of {stage.group_size}")
    if stage.max_query_length > stage.max_length - 5:
        mistakes.append(f"{at}.max_query_length: {stage.max_query_length} leaves no document in {stage.max_length}")
    if stage.negatives not in NEGATIVE_SAMPLERS:
        hint = nearest(stage.negatives, NEGATIVE_SAMPLERS)
        mistakes.append(f"{at}.negatives: no sampler of negatives is called '{stage.negatives}'; {hint}")
    if stage.patience and not stage.validate_every:
        mistakes.append(f"{at}.patience: needs validate_every, or there is nothing to wait for")
    mistakes += optimizer_mistakes(at, stage)
    mistakes += filter_mistakes(f"{at}.filter", stage.filter, stage.steps, stage.groups_per_step)
    teachers = tuple(part.teacher for part in stage.parts if part.teacher)
    mistakes += curriculum_mistakes(f"{at}.curriculum", stage.curriculum, teachers)
    return mistakes + _group_mistakes(at, sampled)


def _group_mistakes(at: str, stage: Stage) -> list[str]:
    """Return the settings of a stage's groups that contradict each other."""
    mistakes = []
    if stage.source == "teacher":
        only = {
            "negatives_from": "all",
            "below_positives": "no",
            "in_batch": 0,
            "unretrieved": "positives",
            "positives_by": "random",
            "negative_sources": (),
            "false_negatives": FalseNegativeFilters(),
        }
        given = [key for key, default in only.items() if getattr(stage, key) != default]
        mistakes += [f'{at}.{key}: needs source = "labels"; a teacher\'s list has no negatives' for key in given]
    if stage.source == "teacher" and stage.labels_by:
        mistakes.append(f'{at}.labels_by: needs source = "labels"; `teacher` names what a list comes from')
    if stage.source == "labels" and stage.targets != "auto":
        mistakes.append(f'{at}.targets: "{stage.targets}" are a teacher\'s; source = "labels" gives grades')
    if stage.unretrieved == "judged" and stage.negatives_from == "unjudged":
        mistakes.append(f'{at}.unretrieved: adds judged documents, which negatives_from = "unjudged" leaves out')
    if stage.in_batch and stage.groups_per_step < 2:
        mistakes.append(f"{at}.in_batch: needs groups_per_step of 2 or more, or there are no other queries")
    return mistakes + _source_mistakes(at, stage)


def _source_mistakes(at: str, stage: Stage) -> list[str]:
    """Return the mistakes in where a stage's negatives come from, and in the filters against false ones."""
    kinds = {source.source for source in stage.negative_sources}
    mistakes = source_mistakes(f"{at}.negative_sources", stage.negative_sources, stage.groups_per_step)
    mistakes += false_negative_mistakes(f"{at}.false_negatives", stage.false_negatives)
    if "in-batch" in kinds and stage.in_batch:
        mistakes.append(f'{at}.in_batch: adds what the source "in-batch" gives already; leave one of them out')
    if kinds and stage.unretrieved == "judged":
        mistakes.append(f'{at}.unretrieved: "judged" adds to one list of candidates, and negative_sources has several')
    if stage.negatives_from == "judged" and kinds & {"collection", "in-batch"}:
        mistakes.append(f'{at}.negatives_from: "judged" leaves no negatives from the collection or the step')
    return mistakes


def _joint_mistakes(at: str, stage: Stage) -> list[str]:
    """Return what contradicts itself in the losses of a stage that has several, or one with options."""
    mistakes = []
    counts = Counter((part.name, part.teacher, part.sets) for part in stage.losses)
    for (name, teacher, sets), count in counts.items():
        if count > 1:
            of = f"the teacher '{teacher}'" if teacher else "the labels"
            of += f" of {', '.join(sets)}" if sets else ""
            mistakes.append(f"{at}.losses: '{name}' appears twice with {of}; give one of them, with the sum of weights")
    if stage.labels_by and all(part.teacher for part in stage.losses):
        mistakes.append(f"{at}.labels_by: none of the losses learns from labels; leave it out")
    if stage.gradient_cosine_every and len(stage.losses) < 2:
        mistakes.append(f"{at}.gradient_cosine_every: needs two losses or more")
    return mistakes


def _double_mistakes(values: Mapping[str, object]) -> list[str]:
    """Return an error for each key of a stage's single loss that is given beside `losses`, defaults among them."""
    stages = values.get("stages")
    if not isinstance(stages, Mapping):
        return []
    return [
        f"stages.{name}.{key}: given beside [[stages.{name}.losses]], which takes its place; leave one of them out, or "
        "give the losses to a stage of another name"
        for name, stage in stages.items()
        if isinstance(stage, Mapping) and stage.get("losses")
        for key in ONE_LOSS
        if key in stage
    ]


def _adapter_mistakes(recipe: Recipe) -> list[str]:
    """Return what contradicts itself in the adapters of the chain's stages."""
    mistakes = []
    before: AdapterSpec | None = None  # of the stage before; None in the first stage
    for name in (name for name in recipe.chain if name in recipe.stages):
        spec, at = recipe.stages[name].adapter, f"stages.{name}.adapter"
        if not spec.is_lora and spec != AdapterSpec():
            mistakes.append(f'{at}.kind: "none", and the table sets other keys; set kind = "lora", or take them out')
        if spec.is_lora and before is not None:
            mistakes += _adapter_start_mistakes(at, spec, before)
        if spec.is_lora and recipe.stages[name].has_one_token_type and spec.save != "merged":
            what = "an adapter lies over a base that tells token types apart, which this stage changes for itself alone"
            hint = 'set save = "merged", or let a stage before this one, which trains all weights, make the types one'
            mistakes.append(f"{at}.save: {what}; {hint}")
        before = spec
    return mistakes


def _adapter_start_mistakes(at: str, spec: AdapterSpec, before: AdapterSpec) -> list[str]:
    """Return what contradicts itself in how a stage's adapter follows on the stage before."""
    if spec.start == "new":
        if before.is_lora and before.save == "adapter" and spec.save != "merged":
            what = "would lie over an adapter, for the stage before saves no whole model"
            return [f'{at}.start: a new adapter {what}; set start = "continue", or save = "both" there']
        return []
    if not before.is_lora:
        return [f'{at}.start: "continue" needs an adapter in the stage before; set start = "new"']
    if before.save == "merged":
        return [f'{at}.start: "continue" needs the adapter of the stage before; set save = "both" there']
    shape = ("rank", "scale", "targets", "dora", "rslora", "modules_to_save")
    return [
        f'{at}.{"alpha" if key == "scale" else key}: differs from the stage before, whose adapter "continue" trains'
        for key in shape
        if getattr(spec, key) != getattr(before, key)
    ]


def _teacher_use_mistakes(recipe: Recipe) -> list[str]:
    """Return an error for each use of a teacher that is not declared, or cannot give what is wanted there."""
    mistakes = []
    for name, stage in ((name, view) for name, each in recipe.stages.items() for view in each.by_source()):
        at, spec = f"stages.{name}", recipe.teachers.get(stage.asked_teacher)
        if stage.labels_by and spec is None:
            mistakes.append(f"{at}.labels_by: no teacher is called '{stage.labels_by}'; declare it in [teachers]")
        elif stage.labels_by and spec is not None and spec.kind != "graded":
            mistakes.append(
                f'{at}.labels_by: a teacher of kind "{spec.kind}" gives no grades; take one of kind "graded"'
            )
        elif spec is not None and not spec.ranks:
            mistakes.append(f'{at}.teacher: a teacher of kind "{spec.kind}" ranks nothing')
        mistakes += _scorer_mistakes(f"{at}.false_negatives.scores", stage, recipe)
    mistakes += _confidence_mistakes(recipe)
    mistakes += _malformed_mistakes(recipe) + _list_mistakes(recipe)
    taken = {"first-stage", *recipe.chain, *recipe.baseline_models()}
    for name in recipe.evaluate.teachers:
        spec = recipe.teachers.get(name)
        if spec is None:
            mistakes.append(f"evaluate.teachers: no teacher is called '{name}'; declare it in [teachers]")
        elif not spec.ranks:
            mistakes.append(f'evaluate.teachers: a teacher of kind "{spec.kind}" ranks nothing')
        if name in taken:
            mistakes.append(f"evaluate.teachers: a stage or baseline is called '{name}', too; rename the teacher")
    twice = [name for name, count in Counter(recipe.evaluate.teachers).items() if count > 1]
    return mistakes + [f"evaluate.teachers: '{name}' appears twice" for name in twice]


def _confidence_mistakes(recipe: Recipe) -> list[str]:
    """Return an error for each curriculum by the confidence of a teacher that is made here and gives no scores."""
    mistakes = []
    for name, stage in recipe.stages.items():
        first = next((part.teacher for part in stage.parts if part.teacher), "") if stage.curriculum.is_on else ""
        spec = recipe.teachers.get(first)
        if spec is not None and spec.ranks and not spec.has_scores:
            what = f'a teacher of kind "{spec.kind}" gives an order alone, so that it is equally sure of all queries'
            mistakes.append(f"stages.{name}.curriculum.kind: {what}; take one with scores, or no curriculum")
    return mistakes


def _scorer_mistakes(at: str, stage: Stage, recipe: Recipe) -> list[str]:
    """Return an error if the teacher whose scores a stage's filters take scores no single pair."""
    scorer = recipe.teachers.get(stage.false_negatives.scores)
    if scorer is None or scorer.kind == "cross-encoder":
        return []
    what = f'a teacher of kind "{scorer.kind}" scores no single pair; take one of kind "cross-encoder"'
    return [f"{at}: {what}"]


def _list_mistakes(recipe: Recipe) -> list[str]:
    """Return the mistakes in how the lists of a teacher are cut, which only lists in a file can be."""
    what = "cuts a teacher's lists that come from a file, and this stage reads none"
    mistakes = [
        f"stages.{name}.{key}: {what}"
        for name, stage in recipe.stages.items()
        for key in ("list_depth", "list_queries")
        if getattr(stage, key) and not any(_reads_a_file(view, recipe) for view in stage.by_source())
    ]
    return mistakes + [
        f"stages.{name}.list_depth: a list of 1 document has no order; give 2 or more"
        for name, stage in recipe.stages.items()
        if stage.list_depth == 1
    ]


def _malformed_mistakes(recipe: Recipe) -> list[str]:
    """Return an error for each stage that drops malformed lists and reads none that can be malformed."""
    what = "only permutations of RankGPT (.json with .jsonl) can be malformed; this stage reads none"
    return [
        f"stages.{name}.malformed_lists: {what}"
        for name, stage in recipe.stages.items()
        if stage.malformed_lists == "drop" and not any(_reads_a_file(view, recipe) for view in stage.by_source())
    ]


def _reads_a_file(view: Stage, recipe: Recipe) -> bool:
    """Return whether the teacher of one source of a stage's targets is a file of rankings."""
    return view.source == "teacher" and view.teacher != "embedding" and view.teacher not in recipe.teachers


def rate_mistakes(recipe: Recipe) -> list[str]:
    """Return an error for each stage whose learning rate cannot move float32 weights, as `key.path: what`."""
    if "learning_rate" in recipe.force:
        return []
    return [
        f"stages.{name}.learning_rate: {stage.learning_rate:g} cannot move float32 weights: a step of "
        f"{OPTIMIZERS[stage.optimizer]} is at most "
        f"the rate, a weight of 0.02 has neighbors 1.9e-09 away, and less than half of that ({SMALLEST_RATE:.1e}) "
        'is rounded away; give more, or force = ["learning_rate"]'
        for name, stage in recipe.chained()
        if stage.learning_rate < SMALLEST_RATE
    ]
