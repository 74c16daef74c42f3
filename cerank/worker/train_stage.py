"""One stage of a run: its training and its validation, from its groups and first weights to the model it produces."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import msgspec

from cerank.core.metrics import Event, Position, RankRow, StepMetrics, Validation
from cerank.core.rankings import ordered
from cerank.errors import UsageError
from cerank.evaluation.measures import check, per_query
from cerank.files import disk, journal, manifests
from cerank.inference.rerank import Scorer, chunk_count, rerank
from cerank.models import cross_encoder
from cerank.models.cross_encoder import CrossEncoder
from cerank.planning import inputs
from cerank.recipes.schema import VALIDATION_LOSS
from cerank.retrieval.teachers import Repairs
from cerank.tokenization.tokens import PairTokenizer, TokenLimits
from cerank.training import checkpoints, stage_summary
from cerank.training.batches import TrainingData
from cerank.training.checkpoints import TrainingState
from cerank.training.filtering.filter_state import FilterSummary
from cerank.training.sampling.sampler import Sampler, SamplingStats
from cerank.training.stage_guard import HINTS, StageGuard
from cerank.training.stage_summary import StageSummary, WeightChange
from cerank.training.step_shards import RankStats, describe
from cerank.training.trainer import Trainer
from cerank.training.validation_loss import ValidationLoss
from cerank.worker import orders
from cerank.worker.run_context import RunContext
from cerank.worker.run_inputs import RunInputs
from cerank.worker.stages.stage_groups import StageGroups
from cerank.worker.stages.stage_models import StageModels, Trained


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
        self._groups = StageGroups(context, run_inputs, self._name, self._stage)
        self._models = StageModels(context, run_inputs, index, self._name, self._stage)
        self._steps = 0
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
        sampler = self._groups.in_order(self.make_sampler())
        ties = sampler.teacher_ties() if any(part.teacher for part in stage.parts) else None
        if ties is not None and ties.tied:
            what = f"{ties}; {self._groups.use_of_ties()}"
            context.log.event("teacher ties", f"{self._name}: {what}")
        if stage.validates_by_loss:
            self._validation_loss = self._groups.validation_groups()
        self._steps = sampler.steps
        if self._inputs.datasets[self._training].members:
            self._sets = copy.copy(sampler)  # the sampler itself is in use by the thread that makes batches
        # all that the other processes read is in the run's folder by now
        context.ranks.tell(orders.encode(orders.TrainOrder(self._index, str(stage.precision))))
        context.heartbeat.enter("train", self._name, self._steps)
        files = self._models.start()
        pooling = recipe.pooling if self._index == 0 else files.pooling
        # a new product head is the cosine of the base's embeddings, which says something; any other is random numbers
        is_cosine = "product" in {pooling, files.pooling if pooling == "auto" else ""}
        self._has_fresh_head = files.reading().head == "fresh" and not is_cosine
        encoder, before = self._models.load(files, pooling, keeps_start=context.ranks.is_first)
        if not recipe.compute.shard_parameters:  # else the device gets its share
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
            self._inputs.read_by(self._name, self._training).documents.texts,
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
            divides_weights=recipe.compute.shard_parameters,
        )
        context.heartbeat.enter(
            "train", self._name, self._steps
        )  # begin the phase again, so that loading does not count as training time
        self._at = 0
        self._guard = self._watched()
        state = trainer.train(encoder, data, self)
        if not context.ranks.is_first:
            return  # the first one saves the weights
        is_divided = recipe.compute.shard_parameters and context.ranks.count > 1
        if is_divided:  # this process has a share of the weights, and each checkpoint has all of them
            encoder, _ = self._models.load(files, pooling, keeps_start=False)
            trainer.prepare(encoder)
        kept_step = state.best_step if stage.keep == "best" else state.step
        summary = self._summary(state, kept_step, sampler.sampling)
        summary = msgspec.structs.replace(summary, teacher_ties=ties)
        has_others = stage.hands_on_average or bool(state.bests) or is_divided
        left = Trained(encoder, tokenizer, files, before, 0 if has_others else state.step)
        for measure, best in state.bests.items():  # before the final model, whose folder marks the stage as done
            self._models.keep_best(left, summary, measure, best)
        self._finish(self._models.save(self.final, left, summary))

    def _make_tokens(self, encoder: CrossEncoder, tokenizer: Any, dataset: str) -> PairTokenizer:
        """Return a tokenizer of a dataset's pairs that uses the dataset's token store if there is one."""
        tokens = encoder.make_tokens(tokenizer, TokenLimits.of_stage(self._stage))
        tokens.use_token_store(self._inputs.token_store(self._name, dataset, tokenizer))
        tokens.use_windows(self._inputs.windows_in_use(self._name, dataset))
        return tokens

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
            teacher_lists=self._groups.teacher_lists,
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

    def make_sampler(self) -> Sampler:
        """Return the sampler of the stage's training groups, over all queries that can be used."""
        return self._groups.make_sampler()

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
        queries = self._groups.validation_queries()
        qrels = {query: dict(dataset.qrels.get(query, {})) for query in queries}
        measures = self._measures(qrels)
        first = inputs.validation_first_stage(recipe)
        candidates = self._inputs.candidates(name, first).only(queries).top(stage.validation_depth)
        to_score = self._validation_loss.with_group_candidates(candidates) if self._validation_loss else candidates
        context.heartbeat.enter("validate", self._name, total=len(to_score))
        own: dict[str, dict[str, float]] = {}
        texts = partial(self._inputs.queries, name), self._inputs.read_by(self._name, name).documents.texts
        claimed = context.ranks.claim(f"validation of {self._name} at {step}", chunk_count(to_score))
        for chunk in rerank(self._scorer, to_score, to_score.__getitem__, *texts, block_depth=0, numbers=claimed):
            own |= chunk.scores
            context.heartbeat.advance(len(chunk.scores), chunk.pairs)
        self._scorer.wait_for_others()
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
