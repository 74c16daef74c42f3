"""The groups that a stage is trained and validated on: from candidates, labels and teachers to samplers."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cerank.core.rankings import Ranking
from cerank.planning import inputs
from cerank.recipes.loss_specs import part_target
from cerank.recipes.schema import Stage
from cerank.recipes.sections.negative_specs import FalseNegativeFilters
from cerank.teachers.judging.labels import grades_of
from cerank.training.optimization import curriculum
from cerank.training.sampling.joint_sampler import JointSampler
from cerank.training.sampling.negative_rankings import (
    set_shares,
    source_collections,
    source_rankings,
    usable_record,
)
from cerank.training.sampling.sampler import Sampler, SamplingStats, TrainingPool
from cerank.training.validation_loss import ValidationLoss
from cerank.worker import filtered_negatives
from cerank.worker.joint_stage import joint_sampler, validation_sampler
from cerank.worker.run_context import RunContext
from cerank.worker.run_inputs import RunInputs


class StageGroups:
    """Makes the samplers of a stage.

    Args:
        context: the run's.
        run_inputs: what the run reads.
        name: name of the stage.
        stage: its settings.

    Attributes:
        teacher_lists: queries that the teacher ranked, once `make_sampler` was called.
    """

    def __init__(self, context: RunContext, run_inputs: RunInputs, name: str, stage: Stage) -> None:
        self._context, self._inputs, self._name, self._stage = context, run_inputs, name, stage
        self._training = inputs.training_dataset(context.plan.recipe, stage)
        self.teacher_lists = 0

    def make_sampler(self) -> Sampler:
        """Return the sampler of the stage's training groups, over all queries that can be used."""
        context, stage, recipe = self._context, self._stage, self._context.plan.recipe
        dataset = self._inputs.datasets[self._training]
        context.heartbeat.enter("groups", self._name, total=1)
        if stage.losses:
            return self._joint_sampler()
        is_made_here = inputs.ranks_candidates(recipe, stage)
        ranking: Ranking
        if stage.source == "teacher" and not is_made_here:
            ranking = self._inputs.teacher(self._name, stage, dataset.query_ids)
        else:
            # candidates may be stored deeper than this stage's window, so cut them to it
            ranking = self._inputs.candidates(self._training, inputs.training_first_stage(recipe, stage))
            ranking = ranking.top(stage.window[1] if stage.source == "labels" else inputs.taught_depth(recipe, stage))
        if is_made_here:
            sampler = self._taught_sampler(ranking)
            context.log.event("groups counted", f"{self._name}: {describe_supply(sampler.sampling)}")
            return sampler
        qrels = self._labels_by_model(ranking) if stage.labels_by else dataset.qrels
        sources = source_rankings(recipe, stage, self._inputs.candidates)
        is_kept = not (stage.labels_by or stage.list_queries or stage.list_depth)
        cache = Path(context.plan.cache)
        sampler = Sampler(
            self._name,
            stage,
            recipe.seed,
            TrainingPool(
                query_ids=list(qrels) if stage.labels_by else dataset.query_ids,
                qrels=qrels,
                ranking=ranking,
                has_text=dataset.documents.__contains__,
                scores=ranking.scores,
                sources=sources,
                collections=source_collections(stage, dataset),
                shares=set_shares(dataset, recipe.data.train_temperature),
                usable=usable_record(stage, dataset, ranking, sources, cache) if is_kept else None,
            ),
        )
        if stage.source == "teacher":
            self.teacher_lists = len(ranking)
        if stage.false_negatives.is_used:
            filters = filtered_negatives.NegativeFilter(context, self._inputs, self._name, stage)
            sampler = filters.filtered(sampler)
            filters.save(sampler)
        context.log.event("groups counted", f"{self._name}: {describe_supply(sampler.sampling)}")
        return sampler

    def in_order(self, sampler: Sampler) -> Sampler:
        """Return the sampler in the order of the stage's curriculum, if it has one."""
        if not self._stage.curriculum.is_on:
            return sampler
        ordered, what = curriculum.in_order(sampler, self._stage.curriculum, f"stages.{self._name}.curriculum")
        self._context.log.event("curriculum", f"{self._name}: {what}")
        return ordered

    def _joint_sampler(self) -> JointSampler:
        """Return the sampler of a stage with several losses, or with one that has options."""
        labels = self._labels_by_model if self._stage.labels_by else None
        known = self._inputs, self._context.plan.recipe, self._name, self._stage, labels
        if self._stage.false_negatives.is_used:
            filters = filtered_negatives.NegativeFilter(self._context, self._inputs, self._name, self._stage)
            sampler = joint_sampler(*known, filtered=filters.filtered)
            filters.save(sampler)
        else:
            sampler = joint_sampler(*known)
        self.teacher_lists = sampler.teacher_lists
        supply = describe_supply(sampler.sampling)
        unknown = sampler.describe_unknown()
        self._context.log.event("groups counted", f"{self._name}: {supply}{f'; {unknown}' if unknown else ''}")
        return sampler

    def _taught_sampler(self, candidates: Ranking) -> Sampler:
        """Return the sampler of a stage whose teacher ranks the candidates: only queries that are sampled are ranked.

        A query that the teacher could not rank is left out, and others are sampled in its place.
        """
        dataset = self._inputs.datasets[self._training]
        pool = TrainingPool(
            query_ids=dataset.query_ids,
            qrels=dataset.qrels,
            ranking=candidates,
            has_text=dataset.documents.__contains__,
            scores=None,
            shares=set_shares(dataset, self._context.plan.recipe.data.train_temperature),
        )
        sampler = Sampler(self._name, self._stage, self._context.plan.recipe.seed, pool)
        while True:
            sampled = sampler.sampled_queries
            taught = self._inputs.teacher(self._name, self._stage, sampled)
            unranked = [query for query in sampled if query not in taught]
            if not unranked:
                self.teacher_lists = len(taught)
                return sampler.with_teacher(taught, taught.scores)
            sampler = sampler.leaving_out(unranked)

    def _labels_by_model(self, candidates: Ranking) -> dict[str, dict[str, int]]:
        """Return the grades that the stage's model gives the candidates of as many queries as the stage samples.

        Which of them have a positive is known only then: those without are skipped, and the others are seen more often.
        """
        dataset = self._inputs.datasets[self._training]
        pool = TrainingPool(
            query_ids=dataset.query_ids,
            qrels={},
            ranking=candidates,
            has_text=dataset.documents.__contains__,
            scores=None,
            shares=set_shares(dataset, self._context.plan.recipe.data.train_temperature),
        )
        labeled = self._stage.by_source()[0]
        every = msgspec.structs.replace(labeled, source="teacher", labels_by="")  # any query with candidates
        sampled = Sampler(self._name, every, self._context.plan.recipe.seed, pool).sampled_queries
        graded = grades_of(self._inputs.teacher(self._name, labeled, sampled))
        return {query: graded[query] for query in dataset.queries if query in graded}

    def validation_groups(self) -> ValidationLoss:
        """Return one group for each validation query, sampled once, on which the validation loss is computed."""
        context, stage, recipe = self._context, self._stage, self._context.plan.recipe
        name = inputs.validation_dataset(recipe, stage)
        dataset = self._inputs.datasets[name]
        single = msgspec.structs.replace(
            stage,
            groups_per_step=1,
            in_batch=0,
            without_pair="skip",
            negative_sources=(),  # validation queries have one first stage, and a filter's scores are of others
            false_negatives=FalseNegativeFilters(),
        )
        if stage.losses:
            joint = validation_sampler(self._inputs, recipe, self._name, single, self.validation_queries())
            context.log.event("groups counted", f"validation of {self._name}: {describe_supply(joint.sampling)}")
            return ValidationLoss(joint, stage)
        if stage.source == "labels":
            ranking = self._inputs.candidates(name, inputs.validation_first_stage(recipe)).top(stage.window[1])
        else:
            ranking = self._inputs.teacher(self._name, stage, self.validation_queries(), in_validation=True)
        sampler = Sampler(
            f"{self._name} in validation",
            single,
            recipe.seed,
            TrainingPool(
                query_ids=self.validation_queries(),
                qrels=dataset.qrels,
                ranking=ranking,
                has_text=dataset.documents.__contains__,
                scores=ranking.scores,
            ),
        )
        context.log.event("groups counted", f"validation of {self._name}: {describe_supply(sampler.sampling)}")
        return ValidationLoss(sampler, stage)

    def validation_queries(self) -> list[str]:
        """Return the queries that each validation of the stage re-ranks."""
        dataset = self._inputs.datasets[inputs.validation_dataset(self._context.plan.recipe, self._stage)]
        return list(dataset.queries)[: self._stage.validation_queries or None]

    def use_of_ties(self) -> str:
        """Return what the stage's loss makes of documents that the teacher scores alike."""
        by_scores = [part.name for part in self._stage.parts if part.teacher and part_target(part) == "scores"]
        by_ranks = [part.name for part in self._stage.parts if part.teacher and part_target(part) == "ranks"]
        uses = [f"{loss} learns that their scores are equal" for loss in by_scores]
        return "; ".join([*uses, *(f"they carry no preference in {loss}" for loss in by_ranks)])


def describe_supply(sampling: SamplingStats) -> str:
    """Return a sentence about the groups that a stage's data can give."""
    return (
        f"{sampling.usable} of {sampling.queries} queries are usable for training; "
        f"{sampling.without_candidates} have no candidates, {sampling.without_positive} no positive, "
        f"{sampling.without_negative} no negative; {sampling.undersized} have less than a full group; "
        f"of the positives that the first stage did not retrieve, {sampling.unretrieved_positives} are used and "
        f"{sampling.dropped_positives} left out"
    )
