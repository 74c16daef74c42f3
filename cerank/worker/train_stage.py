"""One stage of a run: its groups, its start, its training, its validation, and the model that it produces."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import time
from collections.abc import Sequence
from functools import partial, reduce
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch

from cerank.core.metrics import Event, Position, RankRow, StepMetrics, Validation
from cerank.core.rankings import Ranking, ordered
from cerank.errors import UsageError
from cerank.evaluation.measures import check, per_query
from cerank.files import disk, journal, manifests
from cerank.inference.rerank import Scorer, chunk_count, rerank
from cerank.models import adapters, cross_encoder
from cerank.models.bases import BaseFiles, fingerprint, locate
from cerank.models.cross_encoder import CrossEncoder
from cerank.models.load_model import load_model
from cerank.models.lora.adapter_training import take_adapter, write_adapter
from cerank.models.lora.quantized_base import quantize_base
from cerank.planning import inputs
from cerank.recipes.loss_specs import part_target
from cerank.recipes.schema import VALIDATION_LOSS, kept_name
from cerank.recipes.sections.negative_specs import FalseNegativeFilters
from cerank.retrieval.teachers import Repairs
from cerank.teachers.judging.labels import grades_of
from cerank.tokenization.tokens import PairTokenizer, TokenLimits
from cerank.training import checkpoints, stage_summary
from cerank.training.batches import TrainingData
from cerank.training.checkpoints import BestStep, TrainingState
from cerank.training.filtering.filter_state import FilterSummary
from cerank.training.optimization.curriculum import in_order
from cerank.training.sampling.joint_sampler import JointSampler
from cerank.training.sampling.negative_rankings import set_shares, source_collections, source_rankings
from cerank.training.sampling.sampler import Sampler, SamplingStats, TrainingPool
from cerank.training.stage_guard import HINTS, StageGuard
from cerank.training.stage_summary import StageSummary, WeightChange
from cerank.training.step_shards import RankStats, describe
from cerank.training.trainer import Trainer
from cerank.training.validation_loss import ValidationLoss
from cerank.worker import filtered_negatives, orders
from cerank.worker.joint_stage import joint_sampler, validation_sampler
from cerank.worker.run_context import RunContext
from cerank.worker.run_inputs import RunInputs

ADAPTER_FOLDER = Path("adapter")  # in the folder of a stage's model, where both are saved


class _Trained(NamedTuple):
    """What a training left in memory."""

    encoder: CrossEncoder
    tokenizer: Any
    start: BaseFiles  # files of the first weights
    before: dict[str, torch.Tensor]  # those weights, on the CPU
    step: int  # whose weights the encoder has; 0 where it may be given those of any step, or their average

    def has_weights_of(self, step: int) -> bool:
        """Return whether the encoder has the weights of a step, so that they need not be read."""
        return self.step == step


class StageWork:
    """Carries out one stage of the run; also receives the callbacks of its trainer."""

    def __init__(self, context: RunContext, run_inputs: RunInputs, index: int, precision: str = "") -> None:
        recipe = context.plan.recipe
        self._context, self._inputs, self._index = context, run_inputs, index
        self._name, stage = recipe.chained()[index]
        chosen: Any = precision or stage.precision
        self._stage = msgspec.structs.replace(stage, precision="fp32" if chosen in {None, "auto"} else chosen)
        self._training = inputs.training_dataset(recipe, self._stage)
        self.final = context.folder.final(index, self._name)
        self._steps = 0
        self._lists = 0  # number of queries that the teacher ranked
        self._at = -1  # steps done, as last reported to the heartbeat; -1 during another phase
        self._has_fresh_head = False
        self._spread = 0.0  # of the scores in the newest step
        self._measured: dict[str, float] = {}  # means of the newest validation, by measure
        self._guard: StageGuard | None = None
        self._validation_loss: ValidationLoss | None = None
        self._sets: Sampler | None = None  # tells how many groups of a step are from each set of a mixture

    def is_finished(self) -> bool:
        """Return whether the final model exists and all models of the stage match their checksums.

        A damaged one is quarantined, and the final model with it, so that the stage makes both again.
        """
        if not self.final.is_dir():
            return False
        for model in (*self._context.folder.best_models(self._index, self._name), self.final):
            try:
                manifests.verify_folder(model)
            except disk.DamagedError as error:
                self._context.log.event("rejected", str(error))
                disk.quarantine(model)
                if model != self.final:
                    disk.quarantine(self.final)
                return False
        return True

    def train(self) -> None:
        """Train from the newest checkpoint to the end and save the model that the stage keeps.

        Raises:
            PausedError: the worker was asked to stop; a checkpoint is saved.
            CerankError: the stage cannot continue.
        """
        context, stage, recipe = self._context, self._stage, self._context.plan.recipe
        sampler = self._in_order(self.make_sampler())
        ties = sampler.teacher_ties() if any(part.teacher for part in stage.parts) else None
        if ties is not None and ties.tied:
            what = f"{ties}; {self._use_of_ties()}"
            context.log.event("teacher ties", f"{self._name}: {what}")
        if stage.validates_by_loss:
            self._validation_loss = self._validation_groups()
        self._steps = sampler.steps
        if self._inputs.datasets[self._training].members:
            self._sets = copy.copy(sampler)  # the sampler itself is in use by the thread that makes batches
        # all that the other processes read is in the run's folder by now
        context.ranks.tell(orders.encode(orders.TrainOrder(self._index, str(stage.precision))))
        context.heartbeat.enter("train", self._name, self._steps)
        files = self._start()
        pooling = recipe.pooling if self._index == 0 else files.pooling
        # a new product head is the cosine of the base's embeddings, which says something; any other is random numbers
        is_cosine = "product" in {pooling, files.pooling if pooling == "auto" else ""}
        self._has_fresh_head = files.reading().head == "fresh" and not is_cosine
        encoder = load_model(files, pooling, recipe.seed)
        # on the CPU, because a GPU's memory is needed for training
        is_first = context.ranks.is_first
        before = {key: value.detach().clone() for key, value in encoder.state_dict().items()} if is_first else {}
        adapter, precision = stage.adapter, str(stage.precision)
        if adapter.is_lora and adapter.start == "continue":
            encoder = load_model(files, pooling, recipe.seed, merges=False, spec=adapter, precision=precision)
        else:
            quantize_base(encoder, adapter, precision, f"stages.{self._name}.adapter")
        encoder.to(context.device)
        tokenizer = cross_encoder.load_tokenizer(files.folder)
        # a separate token cache: train and validation may use the same ids for different texts, as pydocs does
        apart = self._make_tokens(encoder, tokenizer, inputs.validation_dataset(recipe, stage))
        self._scorer = Scorer(encoder, apart, context.device, stage.precision)
        passages = recipe.passages_of(self._name)
        self._scorer.aggregation, self._scorer.top = passages.first_aggregation, passages.top
        data = TrainingData(
            sampler,
            self._make_tokens(encoder, tokenizer, self._training),
            partial(self._inputs.queries, self._training),
            partial(self._inputs.documents, self._training),
            passages.train_on,
        )
        folder = context.folder.checkpoints(self._index, self._name)
        trainer = Trainer(
            self._index,
            self._name,
            stage,
            seed=recipe.seed,
            folder=folder,
            device=context.device,
            shards=context.plan.step_shards,
            ranks=context.ranks,
            passages=passages,
        )
        context.heartbeat.enter(
            "train", self._name, self._steps
        )  # begin the phase again, so that loading does not count as training time
        self._at = 0
        self._guard = self._watched()
        state = trainer.train(encoder, data, self)
        if not context.ranks.is_first:
            return  # every process has the same weights, and the first one saves them
        kept_step = state.best_step if stage.keep == "best" else state.step
        summary = self._summary(state, kept_step, sampler.sampling)
        summary = msgspec.structs.replace(summary, teacher_ties=ties)
        has_others = stage.hands_on_average or bool(state.bests)
        left = _Trained(encoder, tokenizer, files, before, 0 if has_others else state.step)
        for measure, best in state.bests.items():  # before the final model, whose folder marks the stage as done
            self._keep_best(left, summary, measure, best)
        self._finish(self._save_model(self.final, left, summary))

    def _use_of_ties(self) -> str:
        """Return what the stage's loss makes of documents that the teacher scores alike."""
        by_scores = [part.name for part in self._stage.parts if part.teacher and part_target(part) == "scores"]
        by_ranks = [part.name for part in self._stage.parts if part.teacher and part_target(part) == "ranks"]
        uses = [f"{loss} learns that their scores are equal" for loss in by_scores]
        return "; ".join([*uses, *(f"they carry no preference in {loss}" for loss in by_ranks)])

    def _make_tokens(self, encoder: CrossEncoder, tokenizer: Any, dataset: str) -> PairTokenizer:
        """Return a tokenizer of a dataset's pairs that uses the dataset's token store if there is one."""
        tokens = encoder.make_tokens(tokenizer, TokenLimits.of_stage(self._stage))
        tokens.use_token_store(self._inputs.token_store(dataset, tokenizer))
        tokens.use_windows(self._inputs.windows_in_use(self._name, dataset))
        return tokens

    def _keep_best(self, trained: _Trained, summary: StageSummary, measure: str, best: BestStep) -> None:
        """Keep the weights that were best by a measure beside those that the stage hands on.

        Args:
            trained: what the training left.
            summary: summary of the stage.
            measure: the measure.
            best: the validation that was best by it.
        """
        folder = self._context.folder.best_model(self._index, self._name, measure)
        if folder.is_dir():  # the run was killed between this model and the next
            return
        value = -best.value if measure == VALIDATION_LOSS else best.value
        changes = {"kept_step": best.step, "measure": measure, "best": value, "best_step": best.step, "end": value}
        self._save_model(folder, trained, msgspec.structs.replace(summary, start=None, **changes))
        what = f"{measure} {value:.4f} at step {best.step}, as {kept_name(self._name, measure)}"
        self._context.log.event("best weights kept", f"{self._name}: {what}", Position(self._index, summary.steps))

    def _save_model(self, folder: Path, trained: _Trained, summary: StageSummary) -> StageSummary:
        """Write the weights of the summary's kept step, completely or not at all: whole, as an adapter, or both.

        Args:
            folder: folder of the model.
            trained: what the training left.
            summary: summary of the stage, but for how far these weights moved.

        Returns:
            The whole summary, as it is written beside the model.
        """
        limits, saves = TokenLimits.of_stage(self._stage), self._stage.adapter.save
        # taking an adapter out changes a model for good, so that all but the final one are made of copies
        is_copy = folder != self.final and trained.encoder.adapter is not None
        encoder = copy.deepcopy(trained.encoder) if is_copy else trained.encoder
        if not trained.has_weights_of(summary.kept_step):
            place = self._context.folder.checkpoint(self._index, self._name, summary.kept_step)
            checkpoints.load_weights(place, encoder, averaged=self._stage.hands_on_average)
        adapter = take_adapter(encoder)  # and the model is an ordinary one again
        summary = msgspec.structs.replace(summary, weight_change=weight_change(trained.before, encoder))
        with manifests.checksummed_folder(folder) as inside:
            if adapter is None or saves != "adapter":
                cross_encoder.save(encoder, trained.tokenizer, inside, limits)
            if adapter is not None and saves != "merged":
                within = Path() if saves == "adapter" else ADAPTER_FOLDER
                base, sha256 = self._base_of_adapter(trained.start, folder / within)
                write_adapter(encoder, adapter, inside / within, limits, base=base, base_sha256=sha256)
            stage_summary.write(inside, summary)
        return summary

    def _base_of_adapter(self, start: BaseFiles, folder: Path) -> tuple[str, str]:
        """Return name and fingerprint of what the stage's adapter lies over, as seen from the adapter's folder.

        Other stages of the run are named by the way from there, so that a copy of the run's folder is complete.
        """
        if self._stage.adapter.start == "continue" and start.adapter is not None:
            name, sha256 = start.adapter.base, start.adapter.base_sha256
        elif self._index == 0:
            return self._context.plan.recipe.base, start.sha256
        else:
            name, sha256 = str(start.folder), start.sha256
        is_ours = Path(name).is_absolute() and Path(name).is_relative_to(self._context.folder.path.resolve())
        return os.path.relpath(name, folder.resolve()) if is_ours else name, sha256

    def _summary(self, state: TrainingState, kept_step: int, sampling: SamplingStats) -> StageSummary:
        """Return the summary of the stage in numbers, but for how far its weights moved."""
        sources, stage = self._inputs, self._stage
        taught = [key for key, view in self._context.plan.recipe.sources_of(self._name) if view.source == "teacher"]
        sign = -1.0 if stage.validation_measure == VALIDATION_LOSS else 1.0
        end = state.best_value if stage.keep == "best" else state.last_value
        return StageSummary(
            stage=self._name,
            steps=state.step,
            kept_step=kept_step,
            measure=stage.validation_measure,
            best=sign * state.best_value,
            best_step=state.best_step,
            learning_rate=stage.learning_rate,
            sampling=sampling,
            weight_change=WeightChange(0.0, 0.0),
            validation=self._validation_loss.sampling if self._validation_loss else None,
            teacher_lists=self._lists,
            repairs=reduce(Repairs.plus, [sources.repairs(key) for key in taught], Repairs()),
            start=sign * state.start_value if state.start_value is not None else None,
            end=sign * end if end is not None else None,
            fresh_head=self._has_fresh_head,
            filter=FilterSummary.of(stage.filter.kind, state.filter) if state.filter is not None else None,
        )

    def _finish(self, summary: StageSummary) -> None:
        """Log the summary, and remove all checkpoints but the newest, which keeps the optimizer state."""
        step = summary.steps
        position = Position(self._index, step)
        self._context.log.event(
            "stage finished",
            f"{self._name}: hands on the weights of step {summary.kept_step} of {step}"
            f"{', the last, as the recipe says' if self._stage.keep == 'last' else ''}; "
            f"best {summary.measure} on validation {summary.best:.4f} "
            f"at step {summary.best_step}; the weights moved by {summary.weight_change.norm:.2%} of their norm",
            position,
        )
        if summary.weight_change.is_negligible:
            self._context.log.event(
                "stage moved nothing",
                f"{self._name}: the weights moved by {summary.weight_change.norm:.1e} of their norm, less than "
                f"{stage_summary.NEGLIGIBLE_CHANGE:g}, and {summary.weight_change.changed:.1%} of them at all; "
                f"a learning rate of {summary.learning_rate:g} over {step} steps hardly changed the model",
                position,
            )
        if summary.filter is not None:
            self._context.log.event("groups filtered", f"{self._name}: {summary.filter}", position)
        self._warn_at_the_end(position)
        if summary.no_gain:
            hint = "if more queries show the same, a lower learning_rate, fewer steps or other negatives may help"
            self._context.log.event("stage gained nothing", f"{self._name}: {summary.no_gain}; {hint}", position)
        folder = self._context.folder.checkpoints(self._index, self._name)
        for older in self._context.folder.checkpoint_steps(self._index, self._name):
            if older != step:
                disk.discard(folder / checkpoints.folder_name(older))

    def _start(self) -> BaseFiles:
        """Return the files of the stage's first weights: the previous stage's model, or the base."""
        if self._index == 0:
            return self._inputs.base()
        name = self._context.plan.recipe.chain[self._index - 1]
        folder = self._context.folder.final(self._index - 1, name)
        if self._stage.adapter.is_lora and self._stage.adapter.start == "continue":
            inside = folder / ADAPTER_FOLDER
            return locate(str(inside if inside.is_dir() else folder), fetch=False)
        if adapters.is_adapter(folder):
            return locate(str(folder), fetch=False)
        return BaseFiles(name, folder, cross_encoder.CheckpointConfig.read(folder).pooling, fingerprint(folder))

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
                sources=source_rankings(recipe, stage, self._inputs.candidates),
                collections=source_collections(stage, dataset),
                shares=set_shares(dataset, recipe.data.train_temperature),
            ),
        )
        if stage.source == "teacher":
            self._lists = len(ranking)
        if stage.false_negatives.is_used:
            filters = filtered_negatives.NegativeFilter(context, self._inputs, self._name, stage)
            sampler = filters.filtered(sampler)
            filters.save(sampler)
        context.log.event("groups counted", f"{self._name}: {describe_supply(sampler.sampling)}")
        return sampler

    def _in_order(self, sampler: Sampler) -> Sampler:
        """Return the sampler in the order of the stage's curriculum, if it has one."""
        if not self._stage.curriculum.is_on:
            return sampler
        ordered, what = in_order(sampler, self._stage.curriculum, f"stages.{self._name}.curriculum")
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
        self._lists = sampler.teacher_lists
        supply = describe_supply(sampler.sampling)
        unknown = sampler.describe_unknown()
        self._context.log.event("groups counted", f"{self._name}: {supply}{f'; {unknown}' if unknown else ''}")
        return sampler

    def _taught_sampler(self, candidates: Ranking) -> Sampler:
        """Return the sampler of a stage whose teacher ranks the candidates: only queries that are sampled are ranked.

        A query that the teacher could not rank is left out, and others are sampled in its place.
        """
        dataset = self._inputs.datasets[self._training]
        queries = list(dataset.queries)
        while True:
            pool = TrainingPool(
                query_ids=queries,
                qrels=dataset.qrels,
                ranking=candidates,
                has_text=dataset.documents.__contains__,
                scores=None,
                shares=set_shares(dataset, self._context.plan.recipe.data.train_temperature),
            )
            sampler = Sampler(self._name, self._stage, self._context.plan.recipe.seed, pool)
            taught = self._inputs.teacher(self._name, self._stage, sampler.sampled_queries)
            unranked = {query for query in sampler.sampled_queries if query not in taught}
            if not unranked:
                self._lists = len(taught)
                return sampler.with_teacher(taught, taught.scores)
            queries = [query for query in queries if query not in unranked]

    def _labels_by_model(self, candidates: Ranking) -> dict[str, dict[str, int]]:
        """Return the grades that the stage's model gives the candidates of as many queries as the stage samples.

        Which of them have a positive is known only then: those without are skipped, and the others are seen more often.
        """
        dataset = self._inputs.datasets[self._training]
        pool = TrainingPool(
            query_ids=list(dataset.queries),
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

    def _validation_groups(self) -> ValidationLoss:
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
            joint = validation_sampler(self._inputs, recipe, self._name, single, self._validation_queries())
            context.log.event("groups counted", f"validation of {self._name}: {describe_supply(joint.sampling)}")
            return ValidationLoss(joint, stage)
        if stage.source == "labels":
            ranking = self._inputs.candidates(name, inputs.validation_first_stage(recipe)).top(stage.window[1])
        else:
            ranking = self._inputs.teacher(self._name, stage, self._validation_queries(), in_validation=True)
        sampler = Sampler(
            f"{self._name} in validation",
            single,
            recipe.seed,
            TrainingPool(
                query_ids=self._validation_queries(),
                qrels=dataset.qrels,
                ranking=ranking,
                has_text=dataset.documents.__contains__,
                scores=ranking.scores,
            ),
        )
        context.log.event("groups counted", f"validation of {self._name}: {describe_supply(sampler.sampling)}")
        return ValidationLoss(sampler, stage)

    def _validation_queries(self) -> list[str]:
        dataset = self._inputs.datasets[inputs.validation_dataset(self._context.plan.recipe, self._stage)]
        return list(dataset.queries)[: self._stage.validation_queries or None]

    def _watched(self) -> StageGuard:
        """Return what watches the stage's steps; it repeats no warning of an earlier attempt."""
        events, _ = journal.read_valid_rows(self._context.folder.events, Event)
        kinds = {event.kind for event in events if event.text.startswith(f"{self._name}: ")}
        return StageGuard(self._stage, self._steps, frozenset(kinds & HINTS.keys()))

    def _warn_at_the_end(self, position: Position) -> None:
        """Repeat what the guard warned of while the stage was trained, and say whether its last steps still show it."""
        if self._guard is None:
            return
        still = self._guard.now()
        for kind in sorted(self._guard.warned):
            what = f"at the end, too: {still[kind]}" if kind in still else "no longer at the end"
            self._context.log.event(kind, f"{self._name}: {what}; {HINTS[kind]}", position)

    # callbacks of the trainer

    def on_scores(self, step: int, spread: float) -> None:  # noqa: ARG002 - the callback's signature
        """Keep how far apart the scores of one group lie at most in this step, for `on_step`."""
        self._spread = spread

    def on_step(self, metrics: StepMetrics) -> None:
        """Record the metrics of a step; after a resume, compare them with those of the earlier attempt."""
        if self._at != metrics.step - 1:  # after a resume, the first step shows where training continued
            self._context.heartbeat.enter("train", self._name, self._steps, done=metrics.step - 1)
        self._at = metrics.step
        if self._sets is not None:
            names = {number: member.name for number, member in self._inputs.datasets[self._training].members.items()}
            counts = self._sets.set_counts(metrics.step)
            metrics = msgspec.structs.replace(metrics, sets={names[key]: count for key, count in counts.items()})
        self._context.log.write_metrics(metrics)
        self._context.heartbeat.advance(1, metrics.pairs + metrics.forward_pairs)
        if self._guard is not None and metrics.groups:
            for kind, what in self._guard.look(metrics.step, metrics.loss, self._spread).items():
                where = Position(self._index, metrics.step)
                self._context.log.event(kind, f"{self._name}: step {metrics.step}: {what}; {HINTS[kind]}", where)

    def validate(self, step: int) -> float:
        """Re-rank the validation queries with the current model, record the means, and return the deciding one."""
        began = time.perf_counter()
        context, stage, recipe = self._context, self._stage, self._context.plan.recipe
        name = inputs.validation_dataset(recipe, stage)
        dataset = self._inputs.datasets[name]
        queries = self._validation_queries()
        qrels = {query: dict(dataset.qrels.get(query, {})) for query in queries}
        measures = self._measures(qrels)
        first = inputs.validation_first_stage(recipe)
        candidates = self._inputs.candidates(name, first).only(queries).top(stage.validation_depth)
        to_score = self._validation_loss.with_group_candidates(candidates) if self._validation_loss else candidates
        context.heartbeat.enter("validate", self._name, total=len(to_score))
        own: dict[str, dict[str, float]] = {}
        texts = partial(self._inputs.queries, name), partial(self._inputs.documents, name)
        claimed = context.ranks.claim(f"validation of {self._name} at {step}", chunk_count(to_score))
        for chunk in rerank(self._scorer, to_score, to_score.__getitem__, *texts, block_depth=0, numbers=claimed):
            own |= chunk.scores
            context.heartbeat.advance(len(chunk.scores), chunk.pairs)
        scores = {query: of_query for part in context.ranks.gather(own) for query, of_query in part.items()}
        if not context.ranks.is_first:
            return 0.0  # the first process measures, and its value counts
        ranked = {query: {doc: scores[query][doc] for doc in docs} for query, docs in candidates.items()}
        values = per_query(measures, qrels, ordered(ranked, candidates)) if measures else {}
        means = {measure: math.fsum(row.values()) / len(row) for measure, row in values.items()}
        if self._validation_loss:
            means |= self._validation_loss.losses(scores)
        seconds = time.perf_counter() - began
        is_noise = self._has_fresh_head and step == 0
        context.log.write_metrics(Validation(self._index, step, means, fresh_head=is_noise, seconds=seconds))
        figures = ", ".join(f"{measure} {value:.4f}" for measure, value in means.items())
        context.log.event("validated", f"{self._name} step {step}: {figures}", Position(self._index, step))
        context.heartbeat.enter("train", self._name, self._steps, done=step)
        self._at = step
        self._measured = means
        chosen = means[self._deciding_measure(measures)]
        return -chosen if stage.validation_measure == VALIDATION_LOSS else chosen

    def measured(self) -> dict[str, float]:
        """Return what the newest validation gave of each measure in `keep_best`; larger is better."""
        names = [measure for measure in self._stage.keep_best if measure in self._measured]
        return {
            measure: -self._measured[measure] if measure == VALIDATION_LOSS else self._measured[measure]
            for measure in names
        }

    def _deciding_measure(self, measures: Sequence[str]) -> str:
        """Return the measure that decides, by its canonical name."""
        return VALIDATION_LOSS if self._stage.validation_measure == VALIDATION_LOSS else measures[0]

    def _measures(self, qrels: dict[str, dict[str, int]]) -> tuple[str, ...]:
        """Return the stage's own measure and those test measures that the validation qrels can distinguish."""
        where = f"stages.{self._name}"
        deciding = self._stage.validation_measure
        measures = check([deciding], qrels, where) if deciding != VALIDATION_LOSS else ()
        for measure in self._stage.keep_best:
            measures = (*measures, *(check([measure], qrels, where) if measure != VALIDATION_LOSS else ()))
        for measure in self._context.plan.recipe.evaluate.measures:
            with contextlib.suppress(UsageError):  # rel=2 on grades 0 and 1 is fine for the test set but always 0 here
                measures = (*measures, *check([measure], qrels, where))
        return tuple(dict.fromkeys(measures))

    def before_save(self) -> None:
        """Write the metrics to disk first: a checkpoint that outlived them would leave a gap that no replay fills."""
        self._context.log.sync()

    def after_save(self, state: TrainingState) -> None:
        """Log the checkpoint."""
        position = Position(self._index, state.step)
        self._context.log.event("checkpoint saved", f"{self._name} step {state.step}", position)

    def on_rejected(self, reason: str) -> None:
        """Log what was damaged or skipped."""
        self._context.log.event("rejected", reason)

    def on_out_of_memory(self, what: str) -> None:
        """Log that fewer tokens go through the model at once from here on."""
        self._context.log.event("out of memory", f"{self._name}: {what}")

    def on_filter(self, step: int, what: str) -> None:
        """Log how groups are chosen from here on."""
        self._context.log.event("filter changed", f"{self._name}: {what}", Position(self._index, step))

    def on_rank_stats(self, stats: Sequence[RankStats]) -> None:
        """Log what each process did since the last validation."""
        self._context.log.event("ranks", f"{self._name}: {describe(stats)}", Position(self._index, self._at))
        self._context.log.write_ranks(
            [
                RankRow(self._index, self._at, rank, of.device, of.tokens, of.seconds, of.waited, of.memory)
                for rank, of in enumerate(stats)
            ]
        )

    def should_stop(self) -> bool:
        """Return whether a signal or a stop request came."""
        return bool(self._context.stop.reason)


def describe_supply(sampling: SamplingStats) -> str:
    """Return a sentence about the groups that a stage's data can give."""
    return (
        f"{sampling.usable} of {sampling.queries} queries are usable for training; "
        f"{sampling.without_candidates} have no candidates, {sampling.without_positive} no positive, "
        f"{sampling.without_negative} no negative; {sampling.undersized} have less than a full group; "
        f"of the positives that the first stage did not retrieve, {sampling.unretrieved_positives} are used and "
        f"{sampling.dropped_positives} left out"
    )


def weight_change(before: dict[str, torch.Tensor], encoder: CrossEncoder) -> WeightChange:
    """Return how far the weights moved, as a fraction of their norm."""
    moved = total = 0.0
    changed = count = 0
    for key, trained in encoder.state_dict().items():
        value = trained.cpu()
        if value.is_floating_point():
            moved += _squares(value - before[key])
            total += _squares(before[key])
            changed += int((value != before[key]).sum())
            count += value.numel()
    return WeightChange(math.sqrt(moved / total) if total else 0.0, changed / count if count else 0.0)


def _squares(values: torch.Tensor) -> float:
    """Return the sum of squares, computed in float64."""
    return float(values.double().pow(2).sum())
