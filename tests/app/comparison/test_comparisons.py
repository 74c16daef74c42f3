"""Comparisons of what a person names: margins with their provenance, seeds as one system, refusals that say why."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from cerank import recipes
from cerank.app.comparison import comparisons, export_comparison, named_systems, recorded_looks
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.errors import MissingError, UsageError
from cerank.evaluation.compare import Comparison
from cerank.evaluation.compare import compare as compare_systems
from cerank.evaluation.verdicts.terms import Margin, Terms
from cerank.files import json_records
from cerank.runs.records import Done
from cerank.settings import Flags, resolve
from tests.app.made_runs import CREATED, changed, made_run
from tests.refusals import refused
from tests.worker.small import small_plan, write_dataset

MARGIN = {"nDCG@10": 0.1}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Runs: s1-s3 are seeds of a recipe, t1-t2 of one that declares a margin, u declares another, deep is deeper."""
    folder = tmp_path_factory.mktemp("comparisons")
    plan, settings = small_plan(folder)
    found = {}
    for seed in (1, 2, 3):
        found[f"s{seed}"] = made_run(settings, changed(plan, seed=seed), f"s{seed}", skill=0.4)
    for seed in (1, 2):
        found[f"t{seed}"] = made_run(settings, changed(plan, seed=seed, margins=MARGIN), f"t{seed}", skill=0.6)
    found["u"] = made_run(settings, changed(plan, margins={"nDCG@10": 0.2}), "u", skill=0.6)
    found["deep"] = made_run(settings, changed(plan, seed=9, depth=7), "deep")
    found["again"] = made_run(settings, changed(plan, seed=1), "again")
    file = next(iter(plan.recipe.data.test))
    return SimpleNamespace(settings=settings, plan=plan, runs=found, test=file)


def compared(lab, *names, **how):
    return comparisons.compare(lab.settings, ComparisonRequest(targets=tuple(names), **how))


def test_a_margin_of_the_recipe_judges_and_carries_its_time(lab):
    margin = compared(lab, "s1", "t1").terms.margins["nDCG@10"]
    assert (margin.value, margin.before, margin.declared, margin.source) == (0.1, True, CREATED, "recipe")


def test_a_margin_that_a_shipped_recipe_brings_is_said_to_come_with_it(lab, tmp_path):
    shipped = recipes.load("distill").recipe
    size = shipped.evaluate.margins["nDCG@10"]
    settings = msgspec.structs.replace(lab.settings, lab=tmp_path / "lab")
    for name, margin, label in ((shipped.name, size, "own"), (shipped.name, size / 2, "set"), ("mine", size, "named")):
        plan = changed(lab.plan, margins={"nDCG@10": margin})
        plan = msgspec.structs.replace(plan, recipe=msgspec.structs.replace(plan.recipe, name=name))
        made_run(settings, plan, label, skill=0.6)
    other = SimpleNamespace(settings=settings)
    sources = [
        compared(other, f"{label}:first-stage", label).terms.margins["nDCG@10"].source
        for label in ("own", "set", "named")
    ]
    assert sources == ["recipe, as it comes with cerank", "recipe", "recipe"]


def test_a_runs_own_table_is_judged_by_its_margin(lab):
    found = comparisons.of_run(lab.runs["t1"])
    assert found.terms.margins["nDCG@10"].before
    assert all(row.judgment.margin for row in found.rows if row.measure == "nDCG@10")
    assert not any(row.judgment.margin for row in found.rows if row.measure == "RR@10")
    assert comparisons.of_run(lab.runs["s1"]).terms.margins == {}


def test_a_margin_of_the_command_line_is_marked_as_chosen_afterwards_and_says_what_it_replaces(lab):
    found = compared(lab, "s1", "t1", margins=("NDCG@10=.3",), now="2031-01-01")
    margin = found.terms.margins["nDCG@10"]
    assert (margin.value, margin.before, margin.declared) == (0.3, False, "2031-01-01")
    assert "±0.1" in margin.source
    assert any("±0.3" in note for note in export_comparison.short_table(found).notes)


def test_a_margin_repeated_on_the_command_line_stays_declared(lab):
    assert compared(lab, "s1", "t1", margins=("nDCG@10=.10",)).terms.margins["nDCG@10"].before


def test_of_different_declared_margins_the_smallest_judges_and_is_said_to(lab):
    margin = compared(lab, "u", "t1").terms.margins["nDCG@10"]
    assert (margin.value, margin.before) == (0.1, True)
    assert "±0.2" in margin.source


def test_a_margin_that_a_pair_never_declared_was_chosen_afterwards_for_it(lab):
    assert compared(lab, "t1", "s1", "s2").terms.margins["nDCG@10"].before
    margin = compared(lab, "s1", "t1", "s2").terms.margins["nDCG@10"]
    assert not margin.before
    assert "not of every pair" in margin.source
    assert not compared(lab, "t1", "s1", "s2", terms=Terms(pairs="all")).terms.margins["nDCG@10"].before


def finished(settings, plan, label, *, created, done):
    """A run made with these times."""
    folder = made_run(settings, msgspec.structs.replace(plan, created=created), label, skill=0.6)
    json_records.save(folder.done, Done(time=done))


def test_a_margin_declared_after_the_results_it_judges_is_late_however_it_was_declared(lab, tmp_path):
    settings = msgspec.structs.replace(lab.settings, lab=tmp_path)
    early, late = "2026-11-20T10:00:00+00:00", "2026-11-21T10:00:00+00:00"
    finished(
        settings, changed(lab.plan, seed=1), "aa", created="2026-11-01T08:00:00+00:00", done="2026-11-01T09:00:00+00:00"
    )
    finished(
        settings, changed(lab.plan, seed=2), "bb", created="2026-11-02T08:00:00+00:00", done="2026-11-02T09:00:00+00:00"
    )
    # bb trained once more with a margin: the same numbers, which were known on 2 November
    finished(settings, changed(lab.plan, seed=2, margins=MARGIN), "again", created=early, done=late)
    margin = comparisons.compare(settings, ComparisonRequest(targets=("aa", "again"))).terms.margins["nDCG@10"]
    assert (margin.before, margin.declared) == (False, early)
    assert "2026-11-01T09:00:00+00:00" in margin.source
    # in its own table, too
    own = comparisons.of_run(named_systems.target(tmp_path, "again").folder)
    assert not own.terms.margins["nDCG@10"].before
    # another run that declares its own before any result of it, beside one that declared the same before its own
    finished(
        settings,
        changed(lab.plan, seed=5, margins=MARGIN),
        "cc",
        created="2026-10-01T08:00:00+00:00",
        done="2026-10-01T09:00:00+00:00",
    )
    finished(
        settings,
        changed(lab.plan, seed=6, margins=MARGIN),
        "dd",
        created="2026-11-25T08:00:00+00:00",
        done="2026-11-25T09:00:00+00:00",
    )
    assert comparisons.compare(settings, ComparisonRequest(targets=("cc", "dd"))).terms.margins["nDCG@10"].before
    assert comparisons.of_run(named_systems.target(tmp_path, "cc").folder).terms.margins["nDCG@10"].before


@pytest.mark.parametrize("text", ["nDCG@10", "nDCG@10=", "=.02", "nDCG@10=0", "nDCG@10=-1", "nDCG@10=inf", "a=1_0"])
def test_a_margin_that_is_none_is_refused(lab, text):
    with refused(UsageError, "margin-syntax") as caught:
        compared(lab, "s1", "t1", margins=(text,))
    assert caught.value.where == "--margin"


def test_a_margin_for_a_measure_that_is_not_compared_is_refused(lab):
    with refused(UsageError, "margin-unused", "P@5", "nDCG@10", "RR@10"):
        compared(lab, "s1", "t1", margins=("P@5=.1",))
    with refused(UsageError, "margin-twice", "RR@10"):
        compared(
            lab,
            "s1",
            "t1",
            margins=(
                "RR@10=.1",
                "RR@10=.2",
            ),
        )


def test_seeds_are_one_system_of_means_by_query(lab):
    found = compared(lab, "u", "cl=s1,s2, s3", measures=("nDCG@10",))
    system = found.systems[1]
    assert system.label == "cl"
    assert [member.label for member in system.members] == ["cl (seed 1)", "cl (seed 2)", "cl (seed 3)"]
    at, members = system.measured[0], [member.measured[0] for member in system.members]
    for query, value in at.values["nDCG@10"].items():
        assert value == pytest.approx(sum(member.values["nDCG@10"][query] for member in members) / 3)
    notes = "\n".join(export_comparison.short_table(found).notes)
    assert "cl: 3 seeds" in notes
    assert "these checkpoints" in notes
    assert {row.paired.n for row in found.rows} == {12}


def test_a_claim_about_recipes_needs_seeds_on_both_sides(lab):
    found = compared(lab, "cl=s1,s2,s3", "kd=t1,t2", terms=Terms(claim="recipes"))
    assert all(row.recipes and (row.recipes.seeds_left, row.recipes.seeds_right) == (3, 2) for row in found.rows)
    with refused(UsageError, "too-few-seeds", 2):
        compared(lab, "cl=s1,s2,s3", "t1", terms=Terms(claim="recipes"))


def test_one_seed_is_about_these_two_checkpoints(lab):
    assert any("these two rankings" in note for note in export_comparison.short_table(compared(lab, "s1", "t1")).notes)


def test_a_label_alone_renames_a_run_a_stage_or_a_file(lab):
    path = lab.runs["s1"].ranking("distill", lab.test, "bm25")
    found = compared(lab, "base=s1:contrastive", "mine=t1", f"old={path}")
    assert [system.label for system in found.systems] == ["base", "mine", "old"]


def test_a_run_whose_label_holds_an_equals_sign_is_found_by_it(lab, tmp_path):
    settings = msgspec.structs.replace(lab.settings, lab=tmp_path)
    made_run(settings, changed(lab.plan), "lr=1e-4")
    (found,) = named_systems.targets_of(tmp_path, ["lr=1e-4"])
    assert found.label == "lr=1e-4"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("cl=s1,deep", "differ in more than the seed\ndata.depth: 8 against 7"),
        ("cl=s1,s2:contrastive", "differ in more than the seed\nstage: distill against contrastive"),
        ("cl=s1,again", "seed 1 is given twice"),
        ("cl=s1:first-stage,s2:first-stage", "a first stage has no seed"),
        ("cl=s1,nothing", "no run is called 'nothing'"),
        ("=s1,s2", "no run is called '=s1,s2'"),
        ("cl=" + ",".join(["x" * 90] * 4), "no run is called 'xxx"),
    ],
    ids=["depth", "stage", "seed", "first stage", "unknown", "no label", "longer than a file name"],
)
def test_what_is_no_set_of_seeds_is_refused_with_what_differs(lab, text, what):
    with pytest.raises(UsageError) as caught:
        named_systems.targets_of(lab.settings.lab, [text])
    assert what in caught.value.what


def test_a_first_stage_that_no_dataset_brings_is_refused_with_the_command_that_writes_it(tmp_path):
    folders = [write_dataset(tmp_path / name, queries=4) for name in ("adi", "med")]
    for dataset in (str(folders[0]), f"{folders[0]}+{folders[1]}"):
        for text in ("bm25", "first=bm25"):
            with refused(MissingError, "file-not-found", "bm25", dataset, f"{folders[0]}/runs/bm25.run"):
                named_systems.with_dataset_runs(tmp_path / "lab", [text], dataset, tmp_path / "cache")
        others = ("oracle", "no-such-run", "brisk-otter:distill")
        assert len(named_systems.with_dataset_runs(tmp_path / "lab", others, dataset, tmp_path / "cache")) == 3


def test_a_file_cannot_be_a_seed(lab):
    path = lab.runs["s1"].ranking("distill", lab.test, "bm25")
    with refused(UsageError, "seed-unknown"):
        named_systems.targets_of(lab.settings.lab, [f"cl={path},s2"])


def test_condensed_measures_stand_beside_their_own_with_the_margin_marked(lab):
    found = compared(lab, "s1", "t1", measures=("nDCG@10", "R@5"), judged_only=True)
    assert found.measures[:3] == ("nDCG@10", "R@5", "nDCG(judged_only=True)@10")
    margin = found.terms.margins["nDCG(judged_only=True)@10"]
    assert (margin.value, margin.before, margin.source) == (0.1, False, "that of nDCG@10")


@pytest.mark.parametrize("terms", [Terms(), Terms(pairs="all", with_secondary=True), Terms(claim="recipes")])
def test_the_whole_comparison_as_json_is_enough_to_compute_it_again(lab, terms):
    found = compared(lab, "cl=s1,s2,s3", "kd=t1,t2", terms=terms)
    again = msgspec.json.decode(export_comparison.complete(found), type=Comparison)
    assert again == found
    made = compare_systems(again.systems, again.measures, conditions=again.conditions, terms=again.terms)
    assert made == found


def test_rows_for_machines_say_family_method_and_both_intervals(lab):
    found = compared(lab, "s1", "t1", "t2", terms=Terms(correction="bonferroni", family=40))
    table = export_comparison.full_table(found, with_reasons=True)
    rows = [dict(zip([c.key for c in table.columns], row, strict=True)) for row in table.rows]
    assert {(row["family"], row["correction"], row["alpha"], row["claim"]) for row in rows} == {
        (40, "bonferroni", 0.05, "checkpoints")
    }
    judged = [row for row in rows if row["margin"]]
    assert judged
    assert all(row["equivalence_low"] <= row["difference"] <= row["equivalence_high"] for row in judged)
    assert all(row["reason"].startswith(row["verdict"]) for row in rows)


def test_the_interval_a_verdict_rests_on_is_shown_where_it_is_another(lab):
    alone = export_comparison.short_table(
        compared(lab, "s1", "u:contrastive", measures=("RR@10",), terms=Terms(correction="none"))
    )
    assert "judged" not in [column.key for column in alone.columns]
    several = export_comparison.short_table(compared(lab, "s1", "s2", "s3", terms=Terms(correction="bonferroni")))
    place = [column.key for column in several.columns].index("judged")
    assert all(row[place] for row in several.rows if row[-1])


def test_a_gain_declared_in_the_recipe_answers_whether_a_stage_was_worth_it(tmp_path):
    plan, settings = small_plan(tmp_path)
    chosen = msgspec.structs.replace(
        plan.recipe.evaluate, worth={"nDCG@10": 0.05}, harm={"nDCG@10": 0.02}, margins_because="a user sees .05"
    )
    declared = msgspec.structs.replace(plan, recipe=msgspec.structs.replace(plan.recipe, evaluate=chosen))
    made_run(settings, declared, "ww", skill=0.6)
    row = comparisons.compare(settings, ComparisonRequest(targets=("ww:first-stage", "ww"))).rows[0]
    assert row.worth is not None
    assert (row.worth.gain.value, row.worth.harm.value, row.worth.gain.before) == (0.05, 0.02, True)
    assert row.worth.gain.because == "a user sees .05"
    late = comparisons.compare(
        settings, ComparisonRequest(targets=("ww:first-stage", "ww"), worth=("nDCG@10=.07",), now="2031-01-01")
    )
    assert late.rows[0].worth.gain == Margin(
        value=0.07, source="command line, in place of ±0.05 from the recipe", declared="2031-01-01"
    )
    with pytest.raises(UsageError):
        comparisons.compare(settings, ComparisonRequest(targets=("ww:first-stage", "ww"), worth=("nDCG@10",)))


def test_a_recipe_that_declares_a_gain_or_a_reason_is_the_same_recipe_for_seeds(tmp_path):
    plan, settings = small_plan(tmp_path)
    chosen = msgspec.structs.replace(plan.recipe.evaluate, worth={"nDCG@10": 0.05}, margins_because="as in the paper")
    other = msgspec.structs.replace(plan, recipe=msgspec.structs.replace(plan.recipe, evaluate=chosen, seed=7))
    made_run(settings, plan, "aa")
    made_run(settings, other, "bb")
    assert len(named_systems.targets_of(settings.lab, ["both=aa,bb"])[0].members) == 2


def test_a_datasets_own_runs_are_named_as_they_are_called_there(lab, tmp_path):
    data = write_dataset(tmp_path / "data")
    lab_folder = lab.settings.lab
    runs = {"oracle": data / "runs" / "oracle.run"}
    named = named_systems.with_dataset_runs(lab_folder, ["oracle", "first=oracle", "other"], str(data), tmp_path)
    assert named == (str(runs["oracle"]), f"first={runs['oracle']}", "other")
    assert named_systems.with_dataset_runs(lab_folder, ["oracle"], f"{data}[:50%]", tmp_path) == named[:1]
    assert named_systems.with_dataset_runs(lab_folder, ["oracle"], "", tmp_path) == ("oracle",)


def test_a_run_of_the_lab_wins_over_a_datasets_run_of_its_name(lab, tmp_path):
    data = write_dataset(tmp_path / "data")
    (data / "runs" / "oracle.run").rename(data / "runs" / "s1.run")
    assert named_systems.with_dataset_runs(lab.settings.lab, ["s1"], str(data), tmp_path) == ("s1",)


def test_a_look_at_plain_files_makes_no_lab_that_nobody_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    settings = resolve(Flags(), {}, tmp_path).settings
    keys = {"a" * 12: ("b" * 12,)}
    assert recorded_looks.record(settings, keys, by="compare", now="2031-01-01T00:00:00+00:00") is None
    assert not settings.lab.exists()
    named = msgspec.structs.replace(settings, lab=tmp_path / "own")
    assert recorded_looks.record(named, keys, by="compare", now="2031-01-01T00:00:00+00:00") is not None
    settings.lab.mkdir(parents=True)
    assert recorded_looks.record(settings, keys, by="compare", now="2031-01-01T00:00:00+00:00") is not None
