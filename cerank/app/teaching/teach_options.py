"""From a recipe's `[teachers.NAME]` to a request to make its rankings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.errors import UsageError
from cerank.recipes.schema import Recipe
from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.registry import nearest
from cerank.settings import Settings

if TYPE_CHECKING:
    from cerank.teachers.requests import TeachRequest


class TeachOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a command that replace the recipe's values; empty ones keep them."""

    queries: str = ""  # dataset, or a part of one
    first_stage: str = ""
    depth: int = 0
    max_cost: float = 0.0
    max_calls: int = 0
    max_tokens: int = 0
    prices: Path | None = None
    retry_failed: bool = False


def spec_of(recipe: Recipe, name: str) -> TeacherSpec:
    """Return a teacher that the recipe declares.

    Raises:
        UsageError: it declares none of that name.
    """
    if name not in recipe.teachers:
        if not recipe.teachers:
            hint = "a recipe declares it: [teachers.NAME] with kind and model; see `cerank guide teachers`"
            raise UsageError(f"recipe {recipe.name} declares no teachers", hint=hint)
        raise UsageError(f"no teacher is called '{name}'", hint=nearest(name, recipe.teachers))
    return recipe.teachers[name]


def request_of(recipe: Recipe, name: str, settings: Settings, options: TeachOptions) -> TeachRequest:
    """Return the request to rank the candidates of a dataset's queries.

    Raises:
        UsageError: no such teacher; and all that opening the dataset raises.
    """
    from cerank.datasets.open_datasets import open_dataset
    from cerank.machine.devices import physical_cores, resolve_device
    from cerank.planning.inputs import training_dataset, training_first_stage
    from cerank.teachers.budget import Caps
    from cerank.teachers.requests import TeachRequest

    spec = spec_of(recipe, name)
    if not spec.ranks:
        what, hint = f"a teacher of kind {spec.kind} ranks nothing", "`cerank data synthesize` has it write queries"
        raise UsageError(what, where=f"teachers.{name}", hint=hint, code="teacher-without-ranking")
    taught = [stage for _, stage in recipe.sources() if stage.asked_teacher == name]
    queries = options.queries or (training_dataset(recipe, taught[0]) if taught else recipe.data.train)
    first = options.first_stage or (training_first_stage(recipe, taught[0]) if taught else recipe.data.first_stages[0])
    dataset = open_dataset(queries, settings.cache)
    return TeachRequest(
        lab=settings.lab,
        cache=settings.cache,
        name=name,
        teachers=recipe.teachers,
        dataset=dataset,
        first_stage=first,
        queries=tuple(dataset.queries),
        depth=options.depth,
        caps=Caps.of(spec, cost=options.max_cost, calls=options.max_calls, tokens=options.max_tokens),
        prices=options.prices,
        retry_failed=options.retry_failed,
        device=resolve_device(settings.device),
        threads=settings.threads or physical_cores(),
    )


def filled_prompt(request: TeachRequest) -> list[tuple[str, str]]:
    """Return the first prompt of the first query as (role, text); roles as a server is sent them.

    Raises:
        UsageError: the teacher has no prompt.
    """
    from cerank.teachers import prompts
    from cerank.teachers.make import candidates_of, ranked_queries
    from cerank.teachers.procedures.by_kind import procedure_of
    from cerank.teachers.procedures.steps import Asker

    spec = request.spec
    if spec.kind in {"cross-encoder", "ensemble"}:
        raise UsageError(f"a teacher of kind {spec.kind} has no prompt")
    asker = Asker(spec, prompts.template_of(spec))
    narrowed = msgspec.structs.replace(request, queries=request.queries[:1])
    query = next(ranked_queries(narrowed, candidates_of(narrowed)))
    (call, *_) = next(procedure_of(spec)(query, asker))
    shown = [(message.role, message.content) for message in call.messages]
    return [*shown, *([("assistant", call.answer_start)] if call.answer_start else [])]
