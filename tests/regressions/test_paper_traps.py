"""The traps of the code published with "Exploring the Effectiveness of Multi-stage Fine-tuning for Cross-encoder
Re-rankers", each with the number that comments and guides give it; a test fails on what that code does.

Those that cannot occur here:
1  does not run as published: the whole program is run from recipe to table by tests/end_to_end.
7  a compiled model thrown away, attention swapped on every call: nothing here compiles or patches a model in its loop.
9  data sets guessed by substrings of paths: a recipe names its datasets, and an unknown name is refused.
10 a result folder called None: names in a run are made by runs/layout.py, from stages that always have a name.
11 an option without a possible value, a file under another's name: tests/recipes read back every setting; names of
   files that are read come from the recipe.
17 scripts that point to other folders, a hook that is never called: no script stands outside of the program.
18 requirements that do not match the code: pyproject.toml is what tests and type checks run on.
20 one seed, no correction, "not significant" read as "on par": `cerank compare` corrects over a declared family, merges
   seeds and tells equivalence from ignorance; tests/evaluation and tests/simulations hold it to that.
"""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
import pytest
import torch

from cerank.app.plans import checked, plan_of
from cerank.core.rankings import ordered
from cerank.datasets import query_overlaps
from cerank.errors import CerankError, RecipeError, UsageError
from cerank.evaluation.measures import check, per_query
from cerank.inference.rerank import Scorer
from cerank.models.cross_encoder import load, load_tokenizer
from cerank.recipes.recipe_checks import recipe_from
from cerank.recipes.schema import Stage
from cerank.retrieval.teachers import repair
from cerank.tokenization.tokens import PairTokenizer, TokenLimits
from cerank.training.losses import LOSSES
from cerank.training.sampling.sampler import Sampler, TrainingPool
from cerank.training.stage_summary import WeightChange, ranking_stats
from cerank.training.validation_loss import ValidationLoss
from cerank.worker.stages.stage_models import weight_change
from tests.model_fixtures import WORDS, write_tiny
from tests.worker.small import small_plan, write_dataset

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def recipe_with(**stage):
    values = {"name": "r", "chain": ["s"], "stages": {"s": {"steps": 5, **stage.pop("stage", {})}}, **stage}
    return recipe_from(values, "test")


def sampler(stage, qrels, ranking, **more):
    return Sampler(
        "s",
        stage,
        1,
        TrainingPool(query_ids=list(ranking), qrels=qrels, ranking=ranking, has_text=lambda _: True, **more),
    )


class TestTrap2ARateThatMovesNothing:
    def test_the_stage_2_rate_of_the_paper_is_refused_by_a_rule_that_is_stated(self):
        with pytest.raises(RecipeError, match="6e-12"):
            checked(recipe_with(stage={"learning_rate": 6e-12}))

    def test_it_passes_where_it_is_forced_and_rates_that_move_weights_always_do(self):
        assert checked(recipe_with(stage={"learning_rate": 6e-12}, force=["learning_rate"]))
        assert all(checked(recipe_with(stage={"learning_rate": rate})) for rate in (1e-9, 1e-8, 1e-5))

    @pytest.mark.parametrize(("rate", "is_still"), [(6e-12, True), (1e-5, False)])
    def test_a_stage_that_moved_nothing_is_told_by_its_drift(self, rate, is_still):
        torch.manual_seed(0)
        model = torch.nn.Linear(100, 100)
        torch.nn.init.normal_(model.weight, std=0.02)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
        for _ in range(200):
            model(torch.randn(8, 100)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        moved = weight_change(before, model)
        assert moved.is_negligible == is_still
        assert (moved.changed < 0.02) == is_still
        assert isinstance(moved, WeightChange)


RANKING = {f"q{i}": [f"d{j}" for j in range(300)] for i in range(4)}


class TestTrap3PositivesOutsideTheDepth:
    def test_a_positive_at_rank_250_of_a_window_of_200_is_learned_from(self):
        qrels = {query: {"d249": 1} for query in RANKING}
        drawn = sampler(Stage(steps=1, window=(1, 200)), qrels, RANKING)
        for group in drawn.groups(1):
            assert dict(zip(group.doc_ids, group.labels, strict=True))["d249"] == 1.0

    def test_a_query_without_a_positive_never_gets_a_random_one(self):
        qrels = {"q0": {"d5": 1}, "q1": {"d6": 0}, "q2": {}, "q3": {"d7": 1}}
        drawn = sampler(Stage(steps=1), qrels, RANKING)
        assert drawn.sampling.without_positive == 2
        groups = [group for step in range(1, 9) for group in drawn.groups(step)]
        assert {group.query_id for group in groups} == {"q0", "q3"}
        assert all(qrels[group.query_id][group.doc_ids[0]] == 1 for group in groups)


class TestTrap4SeveralPositives:
    def test_no_positive_pushes_another_down(self):
        scores = torch.zeros(1, 4, requires_grad=True)
        labels, mask = torch.tensor([[1.0, 1.0, 0.0, 0.0]]), torch.ones(1, 4, dtype=torch.bool)
        LOSSES["lce"](scores, labels, mask).sum().backward()
        slope = scores.grad[0]
        assert slope[0] < 0 > slope[1]  # both are raised; by argmax the second would fall
        assert slope[2] > 0 < slope[3]

    def test_the_positives_that_are_not_drawn_are_no_negatives(self):
        ranking = {"q": [f"d{j}" for j in range(10)]}
        qrels = {"q": {f"d{j}": 1 for j in range(5)}}
        drawn = sampler(Stage(steps=1, groups_per_step=1, positives=1, group_size=6), qrels, ranking)
        for step in range(1, 20):
            (group,) = drawn.groups(step)
            assert set(group.doc_ids[1:]) == {f"d{j}" for j in range(5, 10)}


def test_trap_5_the_validation_of_a_distillation_is_by_the_teacher_and_not_by_labels():
    stage = Stage(steps=1, loss="ranknet", source="teacher", teacher="t", group_size=3, groups_per_step=1)
    teacher = {"q": ["c", "a", "b"]}
    held = ValidationLoss(sampler(stage, {"q": {"b": 1}}, teacher), stage)
    agreeing = held.losses({"q": {"c": 3.0, "a": 2.0, "b": 1.0}})["loss"]
    by_label = held.losses({"q": {"b": 3.0, "a": 2.0, "c": 1.0}})["loss"]
    assert agreeing < 0.3 < by_label


class TestTrap6GroupsWithoutAPair:
    def test_a_list_of_one_document_is_counted_and_left_out_and_never_costs_0(self):
        stage = Stage(steps=1, loss="ranknet", source="teacher", teacher="t", groups_per_step=2)
        drawn = sampler(stage, {}, {"q0": ["a", "b", "c"], "q1": ["a"]})
        assert (drawn.sampling.usable, drawn.sampling.without_negative) == (1, 1)
        assert all(group.pairs == 3 for step in range(1, 9) for group in drawn.groups(step))

    def test_data_without_a_single_pair_is_refused(self):
        stage = Stage(steps=1, loss="ranknet", source="teacher", teacher="t")
        with pytest.raises(CerankError) as caught:
            sampler(stage, {}, {"q1": ["a"]})
        assert caught.value.code == "no-usable-query"


def test_trap_8_a_base_with_token_types_sees_query_and_document_in_two_segments(tmp_path):
    files = write_tiny(tmp_path / "tiny", "electra")
    tokens = PairTokenizer(load_tokenizer(files.folder), TokenLimits(16, 8))
    tokens.add("query", ["q"], lambda _: ["alpha beta"])
    tokens.add("document", ["d"], lambda _: ["gamma delta"])
    batch = tokens.batch([tokens.pair("q", "d")], torch.device("cpu"))
    assert batch.has_types
    assert batch.segments.tolist() == [[0, 0, 0, 0, 1, 1, 1]]
    model = load(files, "auto", 0).eval()
    flat = msgspec.structs.replace(batch, segments=torch.zeros_like(batch.segments))
    assert model(batch).item() != model(flat).item()


@pytest.mark.parametrize(
    ("answer", "order"),
    [("[2] > [2] > [1]", (1, 0, 2)), ("[3] > [7] > [1] > [2]", (2, 0, 1)), ("[2]", (1, 0, 2)), ("", (0, 1, 2))],
)
def test_trap_12_a_malformed_permutation_is_mended_and_counted_neither_dropped_nor_kept_wrong(answer, order):
    found, repairs = repair(answer, 3)
    assert found == order
    assert repairs.repaired == 1


class TestTrap13QueriesOfTwoSplits:
    def planned(self, folder, train, validation, test, **recipe):
        data = str(write_dataset(folder / "data"))
        base = str(write_tiny(folder / "base").folder)
        names = {"train": train, "validation": validation, "test": [f"{data}{test}"], "first_stages": ["bm25"]}
        names |= {key: f"{data}{names[key]}" for key in ("train", "validation")}
        values = {"name": "r", "base": base, "pooling": "mean", "chain": ["s"], "data": names, **recipe}
        from cerank.settings import Settings

        settings = Settings(lab=folder / "lab", cache=folder / "cache", device="cpu", threads=1, format="")
        return plan_of(
            recipe_from({**values, "stages": {"s": {"steps": 5, "max_length": 48, "max_query_length": 16}}}, "test"),
            settings,
            now=NOW,
        )

    def test_learning_from_test_queries_is_refused_unless_it_is_forced(self, tmp_path):
        with pytest.raises(RecipeError) as caught:
            self.planned(tmp_path / "a", "[:60%]", "[80%:]", "[40%:80%]")
        assert caught.value.code == "shared-queries"
        assert "force" in caught.value.hint
        assert self.planned(tmp_path / "b", "[:60%]", "[80%:]", "[40%:80%]", force=["shared_queries"])

    def test_choosing_checkpoints_by_test_queries_is_refused(self, tmp_path):
        with pytest.raises(RecipeError) as caught:
            self.planned(tmp_path, "[:40%]", "[40%:]", "[60%:]")
        assert caught.value.code == "shared-queries"

    def test_queries_that_training_and_validation_share_are_told(self, tmp_path):
        from cerank.app.plans import shared_queries

        plan = self.planned(tmp_path, "[:50%]", "[25%:75%]", "[75%:]", force=["shared_queries"])
        (found,) = [row for row in shared_queries(plan) if row.right.role == query_overlaps.VALIDATION]
        assert (found.left.role, found.of, found.by_id) == (query_overlaps.TRAINING, 20, 10)
        assert str(found).startswith(f"{found.shared} of the 20 queries of validation on ")


def test_trap_14_a_threshold_that_labels_of_0_and_1_cannot_meet_is_refused_when_a_run_is_planned(tmp_path):
    for name in ("RR(rel=2)@10", "AP(rel=2)"):
        with pytest.raises(UsageError) as caught:
            small_plan(tmp_path / name.partition("(")[0], evaluate={"measures": ["nDCG@10", name]})
        assert caught.value.code == "measure-always-0"
    assert check(["RR@10", "AP"], {"q": {"d": 1, "e": 0}}, "here") == ("RR@10", "AP")


class TestTrap15Ties:
    def test_scores_leave_the_model_in_float32_under_bf16_too(self, tmp_path):
        files = write_tiny(tmp_path / "tiny")
        scorer = Scorer(
            load(files, "mean", 0), PairTokenizer(load_tokenizer(files.folder), TokenLimits(24, 8)), "cpu", "bf16"
        )
        pairs = [(WORDS[i % 20], f"{WORDS[(i * 7) % 20]} {WORDS[(i * 3) % 20]}") for i in range(100)]
        scores = torch.tensor(scorer.score(pairs))
        assert (scores != scores.bfloat16().float()).float().mean() > 0.9

    def test_ties_are_broken_by_the_first_stage_before_measuring_and_their_share_is_kept(self):
        before = {"q": ["z", "a", "m", "b"]}
        ranking = ordered({"q": {"a": 1.0, "b": 0.5, "m": 1.0, "z": 1.0}}, before)
        assert ranking["q"] == ("z", "a", "m", "b")  # by document id it would be a or z by the evaluator's taste
        assert ranking_stats(ranking).tied == 0.75
        qrels = {"q": {"z": 1}}
        assert per_query(("RR@10", "P@1"), qrels, ranking) == {"RR@10": {"q": 1.0}, "P@1": {"q": 1.0}}


def test_trap_16_a_query_that_the_run_lacks_counts_0_in_the_mean():
    qrels = {"q1": {"a": 1}, "q2": {"b": 1}}
    values = per_query(("nDCG@10",), qrels, ordered({"q1": {"a": 2.0, "b": 1.0}}))
    assert values["nDCG@10"] == {"q1": 1.0, "q2": 0.0}


class Lists(Mapping):
    """A long run that is read when it is asked for, as one on disk is."""

    def __init__(self, queries, depth):
        self._queries, self._depth = queries, depth

    def __getitem__(self, query):
        start = int(query) * 7
        return tuple(str(start + place) for place in range(self._depth))

    def __iter__(self):
        return map(str, range(self._queries))

    def __len__(self):
        return self._queries


class TestTrap19Memory:
    def test_drawing_from_a_run_keeps_none_of_its_lists(self):
        lists = Lists(300, 500)
        qrels = {query: {str(int(query) * 7 + 3): 1} for query in lists}
        tracemalloc.start()
        drawn = sampler(Stage(steps=1, window=(1, 500), group_size=100), qrels, lists)
        for step in range(1, 20):
            drawn.groups(step)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2e6  # bytes; the lists themselves are 9 million

    def test_nothing_that_draws_groups_knows_pandas(self):
        modules = "cerank.training.sampling.sampler, cerank.worker.train_stage"
        code = f"import sys, {modules}; sys.exit('pandas' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
