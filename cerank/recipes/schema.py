"""What the user asks for: a base model, a chain of stages, datasets, a seed. Every default is defined here."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Literal

import msgspec

from cerank.core.decode import help_text
from cerank.core.schedule import ScheduleName
from cerank.recipes.sections.adapter_specs import AdapterSpec
from cerank.recipes.sections.curriculum_specs import CurriculumSpec
from cerank.recipes.sections.filter_specs import FilterSpec
from cerank.recipes.sections.loss_parts import LossPart
from cerank.recipes.sections.negative_specs import FalseNegativeFilters, NegativeSource
from cerank.recipes.sections.passage_specs import PassageSpec
from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.recipes.sections.tuning_specs import Tuning

# Upper bounds keep inf and typing slips such as an extra 000 out; no honest value comes near them.
Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Share = Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]
Rate = Annotated[float, msgspec.Meta(gt=0.0, le=1000.0)]
Amount = Annotated[float, msgspec.Meta(ge=0.0, le=10.0**6)]
Size = Rate | str  # of a difference: in the measure's units, or "5%" of the baseline's mean


DEFAULT_MICROBATCH = 8192  # tokens
# what settings of a stage mean on a CPU where a recipe leaves them out: either is the same stage, with one identity
MEANT_BY_DEFAULT: dict[str, object] = {"precision": "fp32", "microbatch": DEFAULT_MICROBATCH}
ONE_LOSS = ("loss", "mean_over", "source", "targets", "teacher")  # keys of a stage whose place `losses` takes
BEST_OF = "@best-"  # between a stage's name and the measure whose best weights it kept
VALIDATION_LOSS = "loss"  # among validation measures: the stage's own loss on validation queries


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stage of fine-tuning: its training groups, its loss, its optimizer, and when it validates."""

    # what it trains on
    loss: Annotated[str, help_text("see `cerank recipes losses`")] = "lce"
    mean_over: Annotated[
        Literal["queries", "pairs"],
        help_text("a step's loss is the mean over its queries, or over all their pairs pooled: long lists weigh more"),
    ] = "queries"
    source: Annotated[Literal["labels", "teacher"], help_text("where a group's targets come from")] = "labels"
    targets: Annotated[
        Literal["auto", "ranks", "scores"],
        help_text("which of a teacher's outputs is the target; auto: the one that the loss prefers"),
    ] = "auto"
    dataset: Annotated[str, help_text('training dataset of this stage; "" takes data.train')] = ""
    validation: Annotated[
        str, help_text('validation dataset of this stage, as for a split of its own; "" takes data.validation')
    ] = ""
    first_stage: Annotated[
        str, help_text('candidates for negatives and teacher; "" takes the first of data.first_stages')
    ] = ""
    teacher: Annotated[
        str, help_text('"embedding", one of [teachers], a TREC run file, or RankGPT permutations (.json with .jsonl)')
    ] = ""
    malformed_lists: Annotated[
        Literal["repair", "drop"],
        help_text("RankGPT permutations with missing or repeated numbers: repair them as RankGPT does, or drop them"),
    ] = "repair"
    list_depth: Annotated[
        Count,
        help_text("keep of a teacher's lists the documents that the stage's first stage ranks so high; 0 keeps all"),
    ] = 0
    list_queries: Annotated[
        Count, help_text("learn from the teacher's lists of so many queries, by the SHA-256 of their ids; 0: of all")
    ] = 0
    labels_by: Annotated[
        str, help_text('source "labels": a graded teacher in [teachers] whose grades replace the qrels; "" takes these')
    ] = ""
    relevance: Annotated[Positive, help_text("smallest grade that counts as a positive")] = 1
    losses: Annotated[
        tuple[LossPart, ...],
        help_text("losses whose weighted sum is trained, in place of loss, source, teacher, targets and mean_over"),
    ] = ()
    gradient_cosine_every: Annotated[
        Count,
        help_text("steps between readings of the cosines of the losses' gradients: a pass more for each loss; 0: none"),
    ] = 0

    # how groups are sampled
    group_size: Annotated[
        int, msgspec.Meta(ge=2, le=10**6), help_text("candidates a query: 1 positive + 7 negatives")
    ] = 8
    groups_per_step: Annotated[
        Positive, help_text("queries per optimizer step (= batch size x gradient accumulation)")
    ] = 4
    positives: Annotated[Positive, help_text("positives in a group, as far as the query has them")] = 1
    positives_by: Annotated[
        Literal["random", "top"], help_text("which positives: any, or those the first stage ranks first")
    ] = "random"
    unretrieved: Annotated[
        Literal["positives", "judged", "none"],
        help_text("judged documents that were not retrieved: positives only, negatives too, or none (the paper's)"),
    ] = "positives"
    negatives: Annotated[
        str,
        help_text("how negatives (or a teacher's candidates) are sampled: uniformly, the first, or by 1/rank"),
    ] = "random"
    negatives_from: Annotated[
        Literal["all", "judged", "unjudged"],
        help_text("negatives may be any candidates, only those judged not relevant, or only those not judged"),
    ] = "all"
    below_positives: Annotated[
        Literal["no", "yes", "fill"],
        help_text("negatives only from below the lowest positive; fill: then upwards from it, if there are too few"),
    ] = "no"
    negative_sources: Annotated[
        tuple[NegativeSource, ...],
        help_text("where negatives come from, a table each, mixed by share; none: the stage's first stage alone"),
    ] = ()
    false_negatives: Annotated[
        FalseNegativeFilters, help_text("filters that drop candidates which may be relevant")
    ] = FalseNegativeFilters()
    in_batch: Annotated[
        Count, help_text("documents of the step's other queries added to each group as negatives; 0 adds none")
    ] = 0
    window: Annotated[
        tuple[Positive, Positive], help_text("ranks of the first stage (or teacher) to sample from, both included")
    ] = (1, 100)
    without_pair: Annotated[
        Literal["skip", "refuse"],
        help_text("a query without usable positives or negatives: skip it, or stop with an error"),
    ] = "skip"
    query_order: Annotated[
        Literal["shuffled", "computed"],
        help_text("an epoch's order of queries: shuffled in memory, or computed place by place, for many millions"),
    ] = "shuffled"

    # how long, how fast
    steps: Annotated[Count, help_text("exactly one of steps and epochs is above 0")] = 0
    epochs: Annotated[Amount, help_text("passes over the usable queries")] = 0.0
    learning_rate: Annotated[Rate, help_text("peak of the schedule")] = 1e-5
    schedule: Annotated[ScheduleName, help_text("after the warm-up: constant, linear to 0, or half a cosine")] = (
        "linear"
    )
    warmup: Annotated[Share, help_text("share of the steps in which the rate rises from 0")] = 0.1
    weight_decay: Annotated[Amount, help_text("decoupled, as AdamW does it")] = 0.01
    optimizer: Annotated[
        Literal["adamw", "lion"],
        help_text("lion moves each weight by the whole rate: take a rate 3 to 10 times smaller than AdamW's"),
    ] = "adamw"
    betas: Annotated[tuple[Share, Share], help_text("AdamW's")] = (0.9, 0.999)
    epsilon: Annotated[Rate, help_text("AdamW's")] = 1e-8
    lion_betas: Annotated[tuple[Share, Share], help_text("Lion's")] = (0.9, 0.99)
    layer_decay: Annotated[
        float,
        msgspec.Meta(gt=0.0, le=1.0),
        help_text("factor of the learning rate from each layer to the one below; embeddings are the lowest"),
    ] = 1.0
    head_rate_factor: Annotated[Rate, help_text("factor of the head's learning rate, such as 10 for a new head")] = 1.0
    ema: Annotated[
        Share, help_text("share of the average of weights that stays at each step, such as 0.999; 0 keeps no average")
    ] = 0.0
    ema_for: Annotated[
        Literal["both", "validation", "result"],
        help_text("what takes the average in place of the weights: validations, the model handed on, or both"),
    ] = "both"
    clip: Annotated[Amount, help_text("largest gradient norm; 0 leaves gradients alone")] = 1.0
    dropout: Annotated[Share | None, help_text("default: the base's own")] = None
    freeze: Annotated[
        Literal["nothing", "positions", "embeddings"],
        help_text("embeddings that are not trained: position embeddings, or all embeddings"),
    ] = "nothing"
    freeze_layers: Annotated[
        Count,
        help_text("layers that are not trained, counted from the bottom; freeze the embeddings, too"),
    ] = 0
    adapter: Annotated[AdapterSpec, help_text("train a low-rank adapter and the head in place of all weights")] = (
        AdapterSpec()
    )

    filter: Annotated[FilterSpec, help_text("train on a part of the groups, chosen by their loss or at random")] = (
        FilterSpec()
    )

    curriculum: Annotated[
        CurriculumSpec, help_text("see the queries that a teacher is sure of first, in a share of the steps")
    ] = CurriculumSpec()

    # what the model reads
    max_length: Annotated[
        int, msgspec.Meta(ge=8, le=10**6), help_text("tokens of query and document together, with special tokens")
    ] = 256
    max_query_length: Annotated[Positive, help_text("tokens of the query; the document gets the rest")] = 64
    max_document_length: Annotated[Count, help_text("tokens of the document; 0: as many as max_length leaves")] = 0
    truncation: Annotated[
        Literal["document", "longest_first"],
        help_text("what a pair above max_length loses: the end of the document, or the end of the longer of the two"),
    ] = "document"
    passages: Annotated[
        PassageSpec, help_text("cut long documents into passages; without a table here, the recipe's holds")
    ] = PassageSpec()
    token_types: Annotated[
        Literal["kept", "zero"],
        help_text("zero: all tokens are of type 0, so that query and document are not told apart by it (the paper's)"),
    ] = "kept"  # noqa: S105 - no password
    precision: Annotated[
        Literal["fp32", "bf16", "tf32", "auto"] | None,
        help_text("of matrix products; auto: bf16 where the device is fast at it; default: fp32, on a GPU auto"),
    ] = None
    microbatch: Annotated[
        Positive | None,
        help_text("tokens per forward pass, padding included; default: 8192, on a GPU what its memory holds"),
    ] = None
    gradient_checkpointing: Annotated[
        bool,
        help_text("keep only each layer's input for the backward pass and compute the rest again: less memory"),
    ] = False

    # when it validates
    validate_every: Annotated[Count, help_text("steps between validations; 0 validates at the end only")] = 0
    validation_measure: Annotated[
        str, help_text('decides which checkpoint is best: a measure, or "loss", of which less is better')
    ] = "nDCG@10"
    validation_loss: Annotated[
        Literal["no", "yes"], help_text("whether validations show the stage's own loss on validation queries, too")
    ] = "no"
    validation_queries: Annotated[Count, help_text("first ones of the validation dataset; 0 takes all")] = 0
    validation_depth: Annotated[Positive, help_text("candidates re-ranked for each validation query")] = 20
    patience: Annotated[
        Count, help_text("stop after this many validations without a better one; 0 never stops early")
    ] = 0
    keep: Annotated[Literal["best", "last"], help_text("which checkpoint the stage hands on")] = "best"
    keep_best: Annotated[
        tuple[str, ...],
        help_text('measures (or "loss") whose best weights are kept, too, named @best-MEASURE behind RUN:STAGE'),
    ] = ()
    checkpoint_every: Annotated[Count, help_text("steps between checkpoints; 0: at each validation")] = 0
    on_nonfinite: Annotated[
        str,
        msgspec.Meta(pattern=r"^(stop|skip:[1-9]\d*)\Z"),
        help_text('at an inf or NaN: "stop", or "skip:3" to leave out up to three steps'),
    ] = "stop"

    # when it warns
    warn_after: Annotated[
        Share, help_text("share of the steps after which the two limits below are first looked at")
    ] = 0.1
    least_spread: Annotated[
        Amount,
        help_text("warns where the scores of no group differ by more over 8 steps: they collapsed; 0 never warns"),
    ] = 1e-5
    least_loss_change: Annotated[
        Amount,
        help_text("warns where 8 losses in a row differ by no more, as a share of their mean; 0 never warns"),
    ] = 1e-4

    @property
    def has_one_token_type(self) -> bool:
        """Return whether query and document are not told apart by token types."""
        return self.token_types == "zero"  # noqa: S105 - no password

    @property
    def tokens_at_once(self) -> int:
        """Return the largest number of tokens in a forward pass."""
        return self.microbatch or DEFAULT_MICROBATCH

    @property
    def validates_by_loss(self) -> bool:
        """Return whether validations compute the stage's own loss."""
        return self.validation_loss == "yes" or VALIDATION_LOSS in {self.validation_measure, *self.keep_best}

    @property
    def averages_in_validation(self) -> bool:
        """Return whether validations measure the average of the weights."""
        return self.ema > 0 and self.ema_for != "result"

    @property
    def hands_on_average(self) -> bool:
        """Return whether the average of the weights is what the stage hands on."""
        return self.ema > 0 and self.ema_for != "validation"

    @property
    def asked_teacher(self) -> str:
        """Return the teacher that the stage learns from, as its source of lists or of labels; "" without one."""
        return self.teacher if self.source == "teacher" else self.labels_by

    @property
    def parts(self) -> tuple[LossPart, ...]:
        """Return the losses whose weighted sum the stage trains; without `losses` the one that its own keys name."""
        if self.losses:
            return self.losses
        teacher = self.teacher if self.source == "teacher" else ""
        return (LossPart(name=self.loss, teacher=teacher, targets=self.targets, mean_over=self.mean_over),)

    def by_source(self) -> tuple[Stage, ...]:
        """Return the stage as one of a single loss, once for each source of its targets: labels, then each teacher.

        A stage without `losses` is returned as it is. What a stage reads is the sum of what these read.
        """
        if not self.losses:
            return (self,)
        first = {part.teacher: part for part in reversed(self.losses)}
        sources = [
            *([""] if "" in first else []),
            *(dict.fromkeys(part.teacher for part in self.losses if part.teacher)),
        ]
        return tuple(
            msgspec.structs.replace(
                self,
                losses=(),
                gradient_cosine_every=0,
                loss=first[source].name,
                targets=first[source].targets if source else "auto",
                source="teacher" if source else "labels",
                teacher=source,
                labels_by="" if source else self.labels_by,
            )
            for source in sources
        )


class Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where queries, documents and labels come from; a name, an ir_datasets id, or a folder; `[:80%]` takes a part."""

    train: Annotated[
        str, help_text('what the stages train on; several by weight: "A * 2 + B", or [{set = "A", weight = 2}, ...]')
    ] = "pydocs/train"
    train_temperature: Annotated[
        Amount, help_text("of a mixture: shares go by weight x size^(1/this); 0: by weight alone")
    ] = 0.0
    validation: Annotated[str, help_text("queries that choose checkpoints; never measured in a comparison")] = (
        "pydocs/validation"
    )
    test: Annotated[tuple[str, ...], help_text("what is re-ranked and measured at the end")] = ("pydocs/test",)
    first_stages: Annotated[
        tuple[str, ...], help_text('"bm25", "scoreddocs", a run of the dataset by name, or a TREC run file')
    ] = ("bm25",)
    validation_first_stage: Annotated[
        str, help_text('candidates re-ranked in validation; "" takes the first of first_stages')
    ] = ""
    depth: Annotated[Positive, help_text("candidates re-ranked for each test query")] = 100
    folds: Annotated[
        str,
        help_text('cross-validate on the test queries, a run for each fold: 5, "5 by seed 7", or a JSON file'),
    ] = ""
    document_template: Annotated[
        str,
        help_text('text of a document from its fields, such as "{title}. {text}"; "" joins title and text by a space'),
    ] = ""


class Evaluate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is measured on the test datasets."""

    measures: Annotated[tuple[str, ...], help_text("names as in ir_measures: nDCG@10, RR@10, AP(rel=2), ...")] = (
        "nDCG@10",
        "RR@10",
    )
    margins: Annotated[
        dict[str, Size],
        help_text('the largest difference of a measure that does not matter, or "5%" of the baseline; declared before'),
    ] = {}
    margins_because: Annotated[str, help_text("why these margins, gains and harm margins; printed under tables")] = ""
    primary: Annotated[
        tuple[str, ...],
        help_text('questions of the verdicts, such as "nDCG@10: distill against contrastive"; other rows describe'),
    ] = ()
    seeds_as: Annotated[
        Literal["pairs", "independent"],
        help_text(
            "in a claim about recipes: pairs compares seed with seed where two recipes share stages or data order"
        ),
    ] = "pairs"
    worth: Annotated[
        dict[str, Size],
        help_text('the gain of a measure that would pay for a stage, or "5%"; at least the margin, if any'),
    ] = {}
    harm: Annotated[
        dict[str, Size], help_text('the largest loss of a measure that would not matter, or "5%"; default: the margin')
    ] = {}
    depths: Annotated[
        tuple[Positive, ...],
        help_text(
            "smaller depths at which the one re-ranking is measured, too; tests say which is enough, or too deep"
        ),
    ] = ()
    score_precision: Annotated[
        Literal["fp32", "bf16"],
        help_text("bf16: rank by scores rounded to it, ties as trec_eval orders them: by document id, largest first"),
    ] = "fp32"
    teachers: Annotated[
        tuple[str, ...],
        help_text("teachers in [teachers] that rank the test queries, too: rows beside the stages, which they bound"),
    ] = ()


class Compute(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the stages are computed, where it decides the last digits of a result."""

    shard_parameters: Annotated[
        bool,
        help_text("divide weights, gradients and optimizer among a run's devices, for bases too large for one"),
    ] = False


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A complete request. `stages` holds settings by name, `chain` says which of them run, in order."""

    name: Annotated[str, help_text("what tables call it; free text")]
    description: Annotated[str, help_text("one sentence for `cerank recipes list`")] = ""
    base: Annotated[str, help_text("pretrained model: a name from `cerank bases`, a hub id, or a folder")] = "minilm"
    pooling: Annotated[
        Literal["auto", "product", "mean", "classifier"], help_text("how states become a score; auto: the base's own")
    ] = "auto"
    base_template: Annotated[
        str,
        help_text('text of a document as the base reads it: "title: {title} text: {text}"; "": data.document_template'),
    ] = ""
    seed: Annotated[Seed, help_text("decides everything random")] = 42
    chain: Annotated[tuple[str, ...], help_text("the stages that run, in order")]
    baselines: Annotated[
        tuple[str, ...],
        help_text("finished re-rankers, by hub id or folder, that re-rank the same candidates as they are, untrained"),
    ] = ()
    force: Annotated[
        tuple[Literal["learning_rate", "shared_queries"], ...],
        help_text("checks to ignore: a learning rate too small to move weights, queries shared by training and test"),
    ] = ()
    data: Annotated[Data, help_text("where queries, documents and labels come from")] = Data()
    evaluate: Annotated[Evaluate, help_text("what is measured on the test datasets")] = Evaluate()
    passages: Annotated[
        PassageSpec,
        help_text("cut long documents into passages, for baselines and stages without a table of their own"),
    ] = PassageSpec()
    compute: Annotated[Compute, help_text("how the stages are computed")] = Compute()
    stages: Annotated[dict[str, Stage], help_text("settings of each stage, by its name")] = {}
    teachers: Annotated[dict[str, TeacherSpec], help_text("teachers that cerank makes, by their names")] = {}
    tuned: Annotated[Tuning, help_text("the sweep that chose settings of this recipe; `cerank sweep` writes it")] = (
        Tuning()
    )

    def chained(self) -> tuple[tuple[str, Stage], ...]:
        """Return the stages that run, in order, with their names."""
        return tuple((name, self.stages[name]) for name in self.chain)

    def sources(self) -> tuple[tuple[str, Stage], ...]:
        """Return (name, stage) of the stages that run, once for each source of targets; see `sources_of`."""
        return tuple(named for name in self.chain for named in self.sources_of(name))

    def sources_of(self, name: str) -> tuple[tuple[str, Stage], ...]:
        """Return (name, stage) for each source of a stage's targets, as `Stage.by_source` gives them.

        From its second teacher on a stage's name has a number behind it; rankings are stored under these names.
        """
        number, named = 0, []  # of teachers so far
        for view in self.stages[name].by_source():
            number += bool(view.asked_teacher)
            named.append((name if number < 2 else f"{name} {number}", view))
        return tuple(named)

    def baseline_models(self) -> dict[str, str]:
        """Return the name of each baseline in tables -> the hub id or folder that it stands for.

        A hub id is its own name. A folder is called by its last part, or by its whole path where two would be the same.
        """
        short = {entry: _baseline_name(entry) for entry in self.baselines}
        counts = Counter([*short.values(), *self.chain, "first-stage"])
        return {name if counts[name] == 1 else entry: entry for entry, name in short.items()}

    def passages_of(self, system: str) -> PassageSpec:
        """Return how a stage or baseline cuts documents into passages."""
        stage = self.stages.get(system)
        return stage.passages if stage is not None and stage.passages.has_passages else self.passages

    def untrained_systems(self) -> tuple[str, ...]:
        """Return the systems that stand beside the stages in tables: baselines, and teachers that rank the tests."""
        return (*self.baseline_models(), *self.evaluate.teachers)


def _baseline_name(entry: str) -> str:
    if entry.count("/") == 1 and not entry.startswith((".", "~", "/")):
        return entry
    return entry.rstrip("/").rpartition("/")[2] or entry


def kept_name(stage: str, measure: str) -> str:
    """Return what commands call the weights of a stage that were best by a measure.

    >>> kept_name("distill", "RR@10")
    'distill@best-RR@10'
    """
    return f"{stage}{BEST_OF}{measure}"


def share_of(size: float | str) -> float | None:
    """Return the share of the baseline's mean that a size such as "5%" is; None for a number.

    Raises:
        ValueError: a text that is no percentage above 0 and below 100.

    Example:
        >>> share_of("5%"), share_of(0.02)
        (0.05, None)
    """
    if not isinstance(size, str):
        return None
    number = size.strip().removesuffix("%").rstrip()
    is_share = size.strip().endswith("%") and re.fullmatch(r"[0-9]{1,2}(\.[0-9]*)?|\.[0-9]+", number)
    if not is_share or not 0 < float(number) < 100:
        raise ValueError(size)
    return float(number) / 100


def shown_size(size: float | str) -> str:
    """Return a size in words: 0.02, or 5 % of the baseline's mean."""
    share = share_of(size)
    return f"{size:g}" if share is None else f"{100 * share:g} % of the baseline's mean"
