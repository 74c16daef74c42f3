"""Published figures are the papers' own, and stand beside nothing that is not the same."""

from __future__ import annotations

import msgspec
import pytest

from cerank.evaluation import published
from cerank.evaluation.published import PublishedQuery


def rows(measure: str) -> dict[str, tuple[float, ...]]:
    (table,) = [table for table in published.papers()[0].tables if table.measure == measure]
    return {row.label: row.values for row in table.rows}


@pytest.mark.parametrize(
    ("base", "recipe", "mean", "least", "largest"),
    [
        ("ELECTRA", "KD", -0.0748, -0.1423, -0.0272),
        ("ELECTRA", "CL>KD", 0.0008, -0.0007, 0.0034),
        ("ELECTRA", "KD>CL", 0.0082, 0.0005, 0.0248),
        ("RoBERTa", "KD", -0.0834, -0.1332, -0.0406),
        ("RoBERTa", "CL>KD", 0.0004, -0.0008, 0.0032),
        ("RoBERTa", "KD>CL", -0.0041, -0.0146, 0.0015),
    ],
)
def test_the_twelve_differences_from_contrastive_alone_are_those_that_were_summed_by_hand(
    base: str, recipe: str, mean: float, least: float, largest: float
) -> None:
    found = rows("nDCG@10")
    differences = [one - other for one, other in zip(found[f"{base} {recipe}"], found[f"{base} CL"], strict=True)]
    assert len(differences) == 12
    assert sum(differences) / 12 == pytest.approx(mean, abs=5.1e-5)
    assert (round(min(differences), 4), round(max(differences), 4)) == (least, largest)


def test_nine_models_by_twelve_cells_by_three_measures() -> None:
    tables = published.papers()[0].tables
    assert [table.measure for table in tables] == ["nDCG@10", "RR@10", "AP"]
    for table in tables:
        assert len(table.rows) == 9
        assert all(len(row.values) == len(table.columns) == 12 for row in table.rows)
        assert all(0 < value < 1 for row in table.rows for value in row.values)


@pytest.mark.parametrize(
    ("measure", "model", "place", "value"),
    [
        ("nDCG@10", "first stage", 0, 0.5121),
        ("nDCG@10", "ELECTRA KD>CL", 5, 0.7585),
        ("RR@10", "ELECTRA KD", 4, 0.8915),
        ("RR@10", "RoBERTa KD>CL", 11, 0.4126),
        ("AP", "first stage", 4, 0.5077),
        ("AP", "RoBERTa CL", 2, 0.2230),
    ],
)
def test_cells_read_again(measure: str, model: str, place: int, value: float) -> None:
    assert rows(measure)[model][place] == value


def test_rank_distillm_keeps_its_asterisks() -> None:
    (table,) = published.papers()[1].tables
    found = {row.label: row for row in table.rows}
    assert found["first stage"].values == (0.480, 0.494, 0.732, 0.724)
    assert found["first stage"].different == (0, 1, 3)
    assert found["two-stage: RankGPT data"].values[2] == 0.477
    assert found["RankT5-3B"].values == (0.710, 0.711, 0.752, 0.772)
    assert all(len(row.values) == 4 for row in table.rows)


ELECTRA = PublishedQuery(
    test="msmarco-passage/trec-dl-2020/judged",
    first_stage="bm25",
    measure="AP(rel=2)",
    base="google/electra-base-discriminator",
    chain=("cl", "kd"),
    loss="ranknet",
    recipe="ecir2025-cl-kd",
)


def beside(**changes: object) -> list[tuple[str, str, float]]:
    found = published.beside(msgspec.structs.replace(ELECTRA, **changes))
    return [(figure.paper, figure.label, figure.value) for figure in found]


def test_a_figure_is_found_by_model_test_set_first_stage_and_measure() -> None:
    assert beside() == [("ecir2025", "ELECTRA CL>KD", 0.4003)]
    assert beside(base="roberta", chain=("kd", "cl"), first_stage="/x/colbertv2.run.gz") == [
        ("ecir2025", "RoBERTa KD>CL", 0.5115)
    ]


@pytest.mark.parametrize("name", ["dl20", "dl-2020", "/data/trec-dl-2020-top100", "msmarco-passage/trec-dl-2020"])
def test_a_test_set_is_known_by_its_names(name: str) -> None:
    assert beside(test=name)
    assert published.heading(name) == "DL20"


@pytest.mark.parametrize(
    "changes",
    [
        {"test": "msmarco-passage/trec-dl-2020/judged[:10]"},
        {"test": "beir/scifact"},
        {"test": "nodl20"},
        {"first_stage": "bm25-rm3"},
        {"measure": "AP"},
        {"measure": "AP(rel=2)@100"},
        {"base": "minilm"},
        {"base": "electra-large"},
        {"chain": ("cl", "cl")},
    ],
)
def test_what_is_not_the_same_has_nothing_beside_it(changes: dict[str, object]) -> None:
    assert beside(**changes) == []


def test_a_grade_of_one_counts_on_dev_small_only() -> None:
    assert beside(test="msmarco-passage/dev/small", measure="RR@10") == [("ecir2025", "ELECTRA CL>KD", 0.3708)]
    assert beside(test="msmarco-passage/dev/small", measure="RR(rel=2)@10") == []
    assert beside(measure="RR@10") == []


def test_recipes_of_rank_distillm_stand_beside_its_figures_and_tell_its_losses_apart() -> None:
    recipe = {"recipe": "rank-distillm", "measure": "nDCG@10", "teacher": "rankzephyr"}
    assert beside(**recipe) == [("rank-distillm", "two-stage: R-D ColBERTv2", 0.711)]
    assert beside(**recipe, loss="adr-mse") == [("rank-distillm", "two-stage: R-D ColBERTv2, ADR-MSE", 0.709)]


def test_rank_distillms_models_are_told_apart_by_the_lists_they_learned_from() -> None:
    recipe = {"recipe": "rank-distillm-x", "measure": "nDCG@10"}
    assert beside(**recipe, teacher="twolar") == [("rank-distillm", "two-stage: TWOLAR", 0.706)]
    assert beside(**recipe, teacher="rankgpt", chain=("kd",)) == [("rank-distillm", "KD only: RankGPT data", 0.666)]
    assert beside(**recipe, teacher="./mine.run") == []


def test_fifteen_rows_of_rank_distillms_table_have_a_released_ranking_and_one_is_the_baseline() -> None:
    paper = published.paper_of("rank-distillm")
    assert paper is not None
    released = [row for row in paper.tables[0].rows if row.run]
    assert len({row.run for row in released}) == 15
    assert paper.baseline in {row.label for row in released}


def test_a_first_stage_stands_beside_that_of_every_paper() -> None:
    found = beside(base="", chain=(), recipe="", measure="nDCG@10")
    assert found == [("ecir2025", "first stage", 0.4769), ("rank-distillm", "first stage", 0.494)]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("RR(rel=2)@10", "RR@10"),
        ("AP(rel=2)", "AP"),
        ("nDCG@10", "nDCG@10"),
        ("nDCG(judged_only=True)@10", "nDCG(judged_only=True)@10"),
        ("P(rel=2,judged_only=True)@10", "P(judged_only=True)@10"),
        ("P(judged_only=True,rel=2)@10", "P(judged_only=True)@10"),
    ],
)
def test_a_measure_without_its_threshold(name: str, plain: str) -> None:
    assert published.plain_measure(name) == plain
