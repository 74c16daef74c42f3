"""A report's tables: the comparison's own means and verdicts, corrected over all that was declared, and no less."""

from __future__ import annotations

import json
import re
import shutil

import msgspec
import pytest
from statsmodels.stats.multitest import multipletests

from cerank.app.comparison import comparisons, named_systems
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.app.report.build_report import build_report
from cerank.app.report.footnotes import GLYPHS
from cerank.app.report.report_scope import ReportRequest
from cerank.errors import UsageError
from cerank.evaluation.verdicts.terms import Terms
from cerank.files import disk
from cerank.files.hashing import sha256_file
from cerank.runs.declared_records import MATRICES
from cerank.runs.records import encode_measures
from cerank.runs.run_store import short_name
from tests.refusals import refused

from .made_matrix import BASES, made_matrix, record_training

FAMILY = 4 * 2 * (2 + 2)  # 2 bases x 2 recipes besides the baseline, 2 first stages, 2 measures on each of 2 test sets


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    found = made_matrix(tmp_path_factory.mktemp("reporting"))
    record_training(found.runs["roberta", "ecir2025-cl-kd"], drift=1e-7)
    return found


@pytest.fixture(scope="module")
def whole(lab):
    return build_report(lab.settings, ReportRequest(names=("grid",)))


def shown(found, measure="nDCG@10"):
    """(model, test, first stage) -> cell of the measure's table."""
    (grid,) = [grid for grid in found.grids if grid.measure == measure]
    return {
        (line.model.label, place.test, place.first_stage): cell
        for line in grid.lines
        for place, cell in zip(grid.places, line.cells, strict=True)
    }


def test_a_table_a_measure_a_row_a_model_a_column_a_first_stage_and_test_set(whole, lab):
    assert [grid.measure for grid in whole.grids] == ["nDCG@10", "RR@10"]
    labels = [line.model.label for line in whole.grids[0].lines]
    assert labels[0] == "first stage"
    assert labels[1:4] == [
        f"electra-base-discriminator {name}" for name in ("ecir2025-cl", "ecir2025-cl-kd", "ecir2025-kd")
    ]
    assert [(place.first_stage, place.test) for place in whole.grids[0].places] == [
        (first, test) for first in ("bm25", "oracle") for test in lab.tests
    ]


def test_each_test_set_is_measured_as_it_declares_and_one_table_holds_both_thresholds(whole, lab):
    cells = shown(whole, "RR@10")
    assert {cell.measure for (_, test, _), cell in cells.items() if test == lab.tests[0]} == {"RR@10"}
    assert {cell.measure for (_, test, _), cell in cells.items() if test == lab.tests[1]} == {"RR(rel=2)@10"}
    assert "RR(rel=2)@10 on DL20" in whole.grids[1].caption[0]


def test_two_thresholds_on_one_test_set_are_two_tables_and_neither_shows_the_other_s_values(lab):
    both = {lab.tests[0]: ("RR@10",), lab.tests[1]: ("RR(rel=2)@10", "RR@10")}
    MATRICES.save(lab.settings.lab, msgspec.structs.replace(lab.record, name="thresholds", measures=both))
    found = build_report(lab.settings, ReportRequest(names=("thresholds",)))
    assert {grid.measure for grid in found.grids} == {"RR@10", "RR(rel=2)@10"}
    for grid in found.grids:
        named = {cell.measure for line in grid.lines for cell in line.cells}
        assert named - {""} == {grid.measure}
    cells = shown(found, "RR(rel=2)@10")
    assert [cells["first stage", test, "bm25"].value is None for test in lab.tests] == [True, False]


def test_values_and_raw_ps_are_those_of_the_command_that_compares(whole, lab):
    names = [lab.runs["roberta", recipe].name for recipe in ("ecir2025-cl", "ecir2025-kd")]
    terms = Terms(correction="holm")
    other = comparisons.compare(
        lab.settings,
        ComparisonRequest(targets=tuple(names), measures=("nDCG@10",), dataset=lab.tests[0], terms=terms),
    )
    for row in other.rows:
        cell = shown(whole)["roberta ecir2025-kd", lab.tests[0], row.condition.first_stage]
        assert cell.value == pytest.approx(row.paired.mean_right, abs=1e-12)
        (mine,) = [
            one
            for one in whole.comparison.rows
            if (one.right, one.measure, one.condition) == ("roberta ecir2025-kd", "nDCG@10", row.condition)
        ]
        assert mine.judgment.p == pytest.approx(row.judgment.p)
        assert mine.p_corrected > row.p_corrected or row.p_corrected == 1


def test_the_family_is_every_model_place_and_measure_and_each_base_has_its_own_baseline(whole):
    rows = whole.comparison.rows
    assert whole.family == len(rows) == whole.comparison.family == FAMILY
    assert {(row.left, row.right) for row in rows} == {
        (f"{base} ecir2025-cl", f"{base} ecir2025-{other}")
        for base in ("electra-base-discriminator", "roberta")
        for other in ("cl-kd", "kd")
    }
    again = multipletests([row.judgment.p for row in rows], method="holm")[1]
    assert [row.p_corrected for row in rows] == pytest.approx(list(again))


def test_a_sign_is_the_verdict(whole):
    signs = set()
    for row in whole.comparison.rows:
        if row.measure == "nDCG@10":
            (cell,) = [
                cell
                for (label, test, first), cell in shown(whole).items()
                if label == row.right
                and first == row.condition.first_stage
                and row.condition.dataset == named_systems.short_name(test)
            ]
            assert cell.sign == ("" if row.verdict == "cannot tell" else row.verdict)
            signs.add(cell.sign)
    assert "worse" in signs
    assert not [cell for (label, _, _), cell in shown(whole).items() if label.endswith("ecir2025-cl") and cell.sign]


def test_the_best_of_a_column_is_marked_and_only_it(whole):
    for table in whole.grids:
        for column in zip(*(line.cells for line in table.lines), strict=True):
            top = max(round(cell.value, 4) for cell in column)
            assert [cell.is_best for cell in column] == [round(cell.value, 4) == top for cell in column]


def test_the_caption_says_test_family_correction_level_queries_depth_and_seeds(whole):
    text = " ".join(whole.grids[0].caption)
    for part in ("paired t-tests", "Holm's correction", "the 32 tests", "declared in matrix grid", "level 5 %"):
        assert part in text
    for part in (
        "40 of DL20",
        "The first 8 of each",
        "One seed (42)",
        "ecir2025-cl of the same base",
        "4 models",
        "2 test sets",
    ):
        assert part in text


def test_a_run_that_is_gone_stays_in_the_family_and_is_named(lab, tmp_path):
    shutil.copytree(lab.settings.lab, tmp_path / "lab")
    settings = msgspec.structs.replace(lab.settings, lab=tmp_path / "lab")
    gone = lab.runs["roberta", "ecir2025-kd"].name
    shutil.rmtree(tmp_path / "lab" / "runs" / gone)
    less = build_report(settings, ReportRequest(names=("grid",)))
    assert less.family == less.comparison.family == FAMILY
    assert len(less.comparison.rows) == FAMILY * 3 // 4
    assert any(gone in line for line in less.missing)
    assert " 8 of them " in " ".join(less.grids[0].caption)


def test_a_ranking_that_is_not_there_yet_leaves_a_gap_and_no_smaller_family(lab, tmp_path):
    shutil.copytree(lab.settings.lab, tmp_path / "lab")
    settings = msgspec.structs.replace(lab.settings, lab=tmp_path / "lab")
    run = lab.runs["roberta", "ecir2025-kd"]
    path = run.ranking("distill", lab.tests[1], "oracle").relative_to(lab.settings.lab)
    (tmp_path / "lab" / path).unlink()
    less = build_report(settings, ReportRequest(names=("grid",)))
    assert less.family == FAMILY
    assert shown(less)["roberta ecir2025-kd", lab.tests[1], "bm25"].value is None
    assert shown(less)["roberta ecir2025-kd", lab.tests[0], "bm25"].value is not None
    assert less.missing == (f"roberta ecir2025-kd on {named_systems.short_name(lab.tests[1])}",)


def test_asking_for_one_measure_shrinks_no_declared_family(lab):
    less = build_report(lab.settings, ReportRequest(names=("grid",), measures=("NDCG@10",)))
    assert [grid.measure for grid in less.grids] == ["nDCG@10"]
    assert less.family == less.comparison.family == FAMILY


def test_a_measure_asked_for_later_enlarges_the_family_and_the_caption_says_so(lab):
    more = build_report(lab.settings, ReportRequest(names=("grid",), measures=("AP",)))
    assert more.family == FAMILY // 2 * 3
    caption = " ".join(more.grids[0].caption)
    assert re.search(r"\b48 tests .*\(4 models .*2 first stages × 3 measures\)", caption)
    runs = build_report(
        lab.settings, ReportRequest(names=tuple(run.name for run in lab.runs.values()), measures=("AP",))
    )
    assert "(5 models × 2 test sets × 2 first stages × 1 measure)" in " ".join(runs.grids[0].caption)


def test_another_baseline_than_the_declared_one_is_said_to_be_chosen_afterwards(lab):
    found = build_report(lab.settings, ReportRequest(names=("grid",), baseline="first-stage"))
    assert {row.left for row in found.comparison.rows} == {"first stage"}
    assert found.family == 6 * 2 * 4
    assert "chosen afterwards" in " ".join(found.grids[0].caption)


def test_runs_have_the_first_as_their_baseline_and_one_run_its_first_stage(lab):
    names = tuple(lab.runs["roberta", f"ecir2025-{one}"].name for one in ("kd", "cl"))
    assert {row.left for row in build_report(lab.settings, ReportRequest(names=names)).comparison.rows} == {
        "roberta ecir2025-kd"
    }
    assert {row.left for row in build_report(lab.settings, ReportRequest(names=names[:1])).comparison.rows} == {
        "first stage"
    }


def test_every_stage_of_a_run_can_be_a_row(lab):
    found = build_report(
        lab.settings, ReportRequest(names=(lab.runs["roberta", "ecir2025-cl-kd"].name,), every_stage=True)
    )
    assert [model.label for model in found.models] == [
        "roberta ecir2025-cl-kd, contrastive only",
        "roberta ecir2025-cl-kd",
    ]
    assert [model.chain for model in found.models] == [("cl",), ("cl", "kd")]


@pytest.mark.parametrize(
    ("names", "baseline", "what"),
    [
        ((), "", "report-empty"),
        (("gird",), "", "run-not-found gird"),
        (("grid",), "ecir2025-kl", "unknown-baseline ecir2025-kl"),
        (("SAME", "SAME"), "", "seed-twice 42"),
    ],
)
def test_what_cannot_be_reported_is_refused(lab, names, baseline, what):
    run = lab.runs["roberta", "ecir2025-cl"].name
    with refused(UsageError, *what.split()):
        build_report(
            lab.settings,
            ReportRequest(names=tuple(run if name == "SAME" else name for name in names), baseline=baseline),
        )


def test_seeds_of_a_recipe_are_one_row_and_the_caption_says_how_many(tmp_path):
    from tests.app.made_runs import changed, made_run
    from tests.worker.small import small_plan

    plan, settings = small_plan(tmp_path, force=["shared_queries"])
    names = [made_run(settings, changed(plan, seed=seed), f"s{seed}").name for seed in (1, 2, 3)]
    found = build_report(settings, ReportRequest(names=tuple(names)))
    (model,) = found.models
    assert model.seeds == (1, 2, 3)
    assert "mean of 3 seeds" in " ".join(found.grids[0].caption)


@pytest.mark.parametrize("declared", ["pairs", "independent"])
def test_with_several_seeds_of_each_row_verdicts_are_about_recipes(tmp_path, declared):
    from tests.app.made_runs import changed, made_run
    from tests.worker.small import small_plan

    plan, settings = small_plan(tmp_path, force=["shared_queries"])
    evaluate = msgspec.structs.replace(plan.recipe.evaluate, seeds_as=declared)
    plan = msgspec.structs.replace(plan, recipe=msgspec.structs.replace(plan.recipe, evaluate=evaluate))
    names = [made_run(settings, changed(plan, seed=seed), f"a{seed}").name for seed in (1, 2, 3)]
    names += [made_run(settings, changed(plan, seed=seed, depth=7), f"b{seed}", skill=0.7).name for seed in (1, 2, 3)]
    found = build_report(settings, ReportRequest(names=tuple(names)))
    assert found.comparison.terms.claim == "recipes"
    assert {row.recipes.is_paired for row in found.comparison.rows} == {declared == "pairs"}
    caption = " ".join(found.grids[0].caption)
    assert ("as pairs" in caption) == (declared == "pairs")
    assert build_report(settings, ReportRequest(names=tuple(names), claim="checkpoints")).comparison.terms.claim == (
        "checkpoints"
    )


def test_a_matrix_that_declares_primary_questions_has_a_family_of_those(lab):
    from cerank.runs.declared_records import MATRICES

    record = MATRICES.load_if_there(lab.settings.lab, "grid")
    chosen = msgspec.structs.replace(record, name="primary", primary=("nDCG@10: ecir2025-cl-kd against ecir2025-cl",))
    MATRICES.save(lab.settings.lab, chosen)
    found = build_report(lab.settings, ReportRequest(names=("primary",)))
    primary = [row for row in found.comparison.rows if row.is_primary]
    assert primary
    assert {(row.measure, row.right.rpartition(" ")[2]) for row in primary} == {("nDCG@10", "ecir2025-cl-kd")}
    assert found.family >= len(primary)
    assert found.family < build_report(lab.settings, ReportRequest(names=("grid",))).family
    assert "primary: nDCG@10: ecir2025-cl-kd against ecir2025-cl" in " ".join(found.grids[0].caption)


def test_a_primary_question_between_two_models_that_are_no_baseline_is_tested_and_answered_first(lab):
    from cerank.runs.declared_records import MATRICES

    record = MATRICES.load_if_there(lab.settings.lab, "grid")
    asked = "nDCG@10: ecir2025-kd against ecir2025-cl-kd"
    chosen = msgspec.structs.replace(record, name="between", primary=(asked,))
    MATRICES.save(lab.settings.lab, chosen)
    found = build_report(lab.settings, ReportRequest(names=("between",)))
    primary = [row for row in found.comparison.rows if row.is_primary]
    pairs = {(row.right.rpartition(" ")[2], row.left.rpartition(" ")[2]) for row in primary}
    assert pairs == {("ecir2025-kd", "ecir2025-cl-kd")}
    assert {row.right.partition(" ")[0] for row in primary} == {row.left.partition(" ")[0] for row in primary}
    assert found.family == len(primary) == len(found.answers)
    assert len(found.described) == len(found.comparison.rows) - len(primary)
    assert {row.verdict for row in found.comparison.rows if not row.is_primary} == {"descriptive"}
    assert not {cell.sign for grid in found.grids for line in grid.lines for cell in line.cells} - {""}


def test_a_primary_question_that_no_model_answers_yet_is_told_and_stays_in_the_family(lab):
    from cerank.runs.declared_records import MATRICES

    record = MATRICES.load_if_there(lab.settings.lab, "grid")
    cells = tuple(
        msgspec.structs.replace(cell, run="2026-01-01-gone") if cell.recipe == "ecir2025-kd" else cell
        for cell in record.cells
    )
    asked = "nDCG@10: ecir2025-kd against ecir2025-cl-kd"
    MATRICES.save(lab.settings.lab, msgspec.structs.replace(record, name="waiting", cells=cells, primary=(asked,)))
    found = build_report(lab.settings, ReportRequest(names=("waiting",)))
    assert f"what answers the primary question {asked}" in found.missing
    assert found.family == build_report(lab.settings, ReportRequest(names=("between",))).family
    assert not any(row.is_primary for row in found.comparison.rows)


def test_every_environment_of_the_latex_that_is_opened_is_closed(whole):
    import re

    from cerank.app.comparison import letters_table
    from cerank.app.report import latex

    texts = [latex.document(whole), letters_table.latex(whole.comparison)]
    texts += [latex.differences(whole.comparison, name) for name in latex.measures_of(whole.comparison)]
    for text in texts:
        opened: list[str] = []
        for kind, name in re.findall(r"\\(begin|end)\{([a-z*]+)\}", text):
            if kind == "begin":
                opened.append(name)
            else:
                assert opened.pop() == name
        assert not opened
        assert text.isascii()
        unescaped = re.sub(r"\\[{}]", "", text)
        assert unescaped.count("{") == unescaped.count("}")


def test_letters_of_a_report_name_the_systems_beaten_and_the_pairs_that_were_tested(whole):
    from cerank.app.comparison import letters_table

    text = letters_table.latex(whole.comparison)
    beaten = [row for row in whole.comparison.rows if row.verdict in {"better", "worse"}]
    assert beaten
    assert text.count("\\mathrm{") >= len({(row.condition, row.measure) for row in beaten})
    assert "Tested: " in text


def test_published_figures_stand_beside_ours_where_they_are_of_the_same(whole, lab):
    (one,) = [
        figure
        for figure in whole.facing
        if (figure.model, figure.measure, figure.first_stage)
        == ("electra-base-discriminator ecir2025-cl-kd", "RR(rel=2)@10", "bm25")
    ]
    assert (one.theirs, one.test, one.paper, one.remark) == (0.8380, "DL20", "ecir2025", "depth 8, theirs 100")
    assert one.difference == one.ours - 0.8380
    assert "depth 8, theirs 500" in {figure.remark for figure in whole.facing if figure.model == "first stage"}
    assert {figure.test for figure in whole.facing} == {"DL20"}
    assert {figure.first_stage for figure in whole.facing} == {"bm25"}


def test_a_measures_file_that_is_not_its_ranking_s_is_told(lab, tmp_path):
    shutil.copytree(lab.settings.lab, tmp_path / "lab")
    settings = msgspec.structs.replace(lab.settings, lab=tmp_path / "lab")
    run = lab.runs["roberta", "ecir2025-kd"]
    path = run.measures("distill", lab.tests[0], "bm25").relative_to(lab.settings.lab)
    query = next(iter(shown_queries(lab)))
    disk.write(tmp_path / "lab" / path, encode_measures({"nDCG@10": {query: 7.0}}))
    found = build_report(settings, ReportRequest(names=("grid",)))
    (note,) = [note for note in found.notes if "measures file" in note]
    assert short_name(run) in note
    assert "in 1 value" in note


def shown_queries(lab):
    from cerank.datasets.open_datasets import open_dataset

    return open_dataset(lab.tests[0], lab.settings.cache).qrels


def test_sources_are_the_files_with_their_hashes(whole, lab):
    paths = {source.path: source.sha256 for source in whole.sources}
    assert str(MATRICES.path_of(lab.settings.lab, "grid").relative_to(lab.settings.lab)) in paths
    assert len([source for source in whole.sources if source.role == "ranking"]) >= 6 * 4
    for path, sha256 in paths.items():
        assert sha256_file(lab.settings.lab / path) == sha256


def test_what_stages_recorded_is_taken_over_and_a_stage_that_stood_still_is_named(whole):
    from cerank.app.report import supplementary_tables

    moved = supplementary_tables.stages(whole)
    assert [row[1] for row in moved.rows] == ["contrastive", "distill"]
    assert any("distill: 1e-07" in note for note in moved.notes)
    assert not any("contrastive" in note for note in moved.notes)
    had = supplementary_tables.groups(whole)
    row = dict(zip((column.key for column in had.columns), had.rows[0], strict=True))
    assert (row["without_positive"], row["short"], row["repaired"], row["out_of_range"]) == (7, 3, 5, 2)
    assert [row[1] for row in supplementary_tables.events(whole).rows] == ["environment changed"]


def test_shared_queries_are_counted_and_runs_that_did_not_look_are_told(whole):
    from cerank.app.report import supplementary_tables

    found = supplementary_tables.shared(whole)
    assert found.rows == (("test on y", "training of distill", 3, 9, 1, 3, "what is x", "1 of 6"),)
    assert [note[:6] for note in found.notes] == ["5 of 6"]


def test_every_ranking_is_measured_at_one_depth_and_says_its_ties(whole):
    assert {(fact.shallowest <= fact.deepest, fact.missing) for fact in whole.places} == {(True, 0)}
    assert {fact.system for fact in whole.places} == {"first stage", *(model.label for model in whole.models)}


def test_the_report_as_json_is_the_same_report(whole):
    from cerank.app.report.report_data import Report

    again = msgspec.json.decode(msgspec.json.encode(msgspec.structs.replace(whole, curves=())), type=Report)
    assert again == msgspec.structs.replace(whole, curves=())
    assert set(GLYPHS) >= {cell.sign for grid in whole.grids for line in grid.lines for cell in line.cells}
    assert json.loads(msgspec.json.encode(again))["family"] == FAMILY
    assert BASES[0].endswith(whole.models[0].base)


def test_within_a_declared_margin_a_model_is_marked_equivalent_and_the_caption_gives_the_margin(tmp_path):
    from cerank.app.report import latex
    from tests.app.made_runs import CREATED, changed, made_run
    from tests.worker.small import small_plan

    plan, settings = small_plan(tmp_path, force=["shared_queries"])
    margins = {"nDCG@10": 0.95}
    plans = {"a": changed(plan, margins=margins), "b": changed(plan, margins=margins, depth=7)}
    names = tuple(made_run(settings, one, label).name for label, one in plans.items())
    found = build_report(settings, ReportRequest(names=names))
    rows = [row for row in found.comparison.rows if row.measure == "nDCG@10"]
    assert {row.verdict for row in rows} <= {"equivalent", "different but negligible"}
    signs = [cell.sign for (label, _, _), cell in shown(found).items() if label.endswith("(b)")]
    assert len(signs) == 2
    assert set(signs) <= {"equivalent", "negligibly better", "negligibly worse"}
    caption = " ".join(found.grids[0].caption)
    assert re.search(rf"±0\.95 nDCG@10 .*{re.escape(CREATED)}\)", caption)
    assert "≈" not in " ".join(found.grids[1].caption)
    assert "\\approx" in latex.table(found.grids[0])
    assert any("depth 8" in note for note in found.notes)


def test_a_margin_declared_after_results_of_the_baseline_has_a_dagger_in_every_form(tmp_path):
    from cerank.app.report import html, latex, markdown, supplementary_tables
    from cerank.files import json_records
    from cerank.runs.records import Done
    from tests.app.made_runs import changed, made_run
    from tests.worker.small import small_plan

    plan, settings = small_plan(tmp_path, force=["shared_queries"])
    base = made_run(settings, plan, "a")
    json_records.save(base.done, Done(time="2026-01-01T00:00:00+00:00"))
    late = made_run(settings, changed(plan, margins={"nDCG@10": 0.95}, depth=7), "b")
    found = build_report(settings, ReportRequest(names=(base.name, late.name)))
    assert not found.comparison.terms.margins["nDCG@10"].before
    assert any(line.startswith("†") for line in found.grids[0].caption)
    assert "\\dagger" in latex.table(found.grids[0])
    assert "†" in markdown.document(found)
    assert "†" in html.document(found)
    cells = supplementary_tables.cells(found)
    keys = [column.key for column in cells.columns]
    assert not [row for row in cells.rows if str(tmp_path) in str(row)]  # no path in a paper's supplement
    judged = [dict(zip(keys, row, strict=True)) for row in cells.rows if row[keys.index("margin")]]
    assert judged
    assert all(row["is_margin_declared"] is False and row["judged_low"] <= row["judged_high"] for row in judged)


def test_a_recipe_on_a_base_of_its_own_is_compared_with_the_one_baseline_there_is(lab):
    of_its_own = [cell for cell in lab.record.cells if (cell.base, cell.recipe) in {
        (BASES[0], "ecir2025-cl"), (BASES[0], "ecir2025-kd"), ("roberta", "ecir2025-cl-kd")
    }]  # fmt: skip
    record = msgspec.structs.replace(lab.record, name="table", cells=tuple(of_its_own))
    MATRICES.save(lab.settings.lab, record)
    found = build_report(lab.settings, ReportRequest(names=("table",)))
    compared = {(row.left, row.right) for row in found.comparison.rows}
    assert compared == {
        ("electra-base-discriminator ecir2025-cl", "electra-base-discriminator ecir2025-kd"),
        ("electra-base-discriminator ecir2025-cl", "roberta ecir2025-cl-kd"),
    }
    assert found.family == len(found.comparison.rows)


def test_a_matrix_of_a_paper_prints_its_table_from_released_rankings_or_says_how_to_get_them(lab, tmp_path):
    MATRICES.save(lab.settings.lab, msgspec.structs.replace(lab.record, name="of", paper="rank-distillm"))
    found = build_report(lab.settings, ReportRequest(names=("of",)))
    assert not found.released
    assert any("rank-distillm-experiments" in line for line in found.missing)
    folder = tmp_path / "experiments" / "rankzephyr"
    folder.mkdir(parents=True)
    run = lab.runs["roberta", "ecir2025-cl"].ranking("first-stage", lab.tests[1], "bm25")
    shutil.copy(run, folder / "bm25_msmarco-passage-trec-dl-2020-judged.run")
    found = build_report(lab.settings, ReportRequest(names=("of",), released=tmp_path / "experiments"))
    rows = {row[0]: row[1] for row in found.released[0].rows}
    assert [label for label, cell in rows.items() if cell is not None] == ["RankZephyr (teacher)"]
    assert len(found.grids) == 2  # the lab's own runs, as before


def test_released_rankings_are_refused_where_no_paper_is_named(lab, tmp_path):
    with refused(UsageError, "unknown-paper", "--released"):
        build_report(lab.settings, ReportRequest(names=("grid",), released=tmp_path))
    MATRICES.save(lab.settings.lab, msgspec.structs.replace(lab.record, name="of", paper="rank-distillm"))
    with refused(UsageError, "not-tested", "nfcorpus"):
        build_report(lab.settings, ReportRequest(names=("of",), judged_by=("nfcorpus",)))
