"""Verdicts through the command line: on TREC DL 2020 they never contradict their intervals; refusals say what to do."""

from __future__ import annotations

import json
import re

import pytest

from cerank import guides
from cerank.evaluation.compare import Comparison, compare
from cerank.recipes import render
from tests.app.made_runs import changed, made_run
from tests.worker.small import small_plan

from .test_command_line import cerank


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A lab with seeds a1, a2 of one recipe and b1, b2 of one that declares a margin; `declared.toml` is the latter."""
    folder = tmp_path_factory.mktemp("verdicts")
    plan, settings = small_plan(folder)
    declared = {"nDCG@10": 0.02}
    for seed in (1, 2):
        made_run(settings, changed(plan, seed=seed), f"a{seed}", skill=0.3)
        made_run(settings, changed(plan, seed=seed, margins=declared), f"b{seed}", skill=0.6)
    (folder / "declared.toml").write_text(render(changed(plan, margins=declared).recipe))
    return folder


@pytest.fixture(scope="module")
def dl20(shared):
    """Arguments that name every run of TREC DL 2020 and its qrels."""
    folder = shared / "trec-dl-2020-top100"
    return [*sorted((folder / "runs").glob("*.run")), "--qrels", folder / "qrels"]


def rows_of(place, *arguments):
    rows = json.loads(cerank(place, "compare", *arguments, "--json").stdout)["rows"]
    return [row for row in rows if row["difference"] is not None]


def is_coherent(row):
    """Whether a verdict is what its adjusted p say, and the intervals beside it say no more."""
    is_different = row["p_corrected"] <= row["alpha"]
    is_within = row["p_equivalence_corrected"] <= row["alpha"]
    excludes = row["judged_low"] > 0 or row["judged_high"] < 0
    is_inside = -row["margin"] < row["equivalence_low"] and row["equivalence_high"] < row["margin"]
    side = "better" if row["difference"] > 0 else "worse"
    words = {
        (True, True): "different but negligible",
        (True, False): side,
        (False, True): "equivalent",
        (False, False): "cannot tell",
    }
    says_more = (excludes and not is_different) or (is_inside and not is_within)
    is_wider = row["judged_low"] <= row["low"] <= row["high"] <= row["judged_high"]
    return (
        row["verdict"] == words[is_different, is_within]
        and is_wider
        and not says_more
        and row["p"] <= row["p_corrected"]
    )


@pytest.mark.parametrize(
    ("margin", "correction"), [(0.01, "auto"), (0.02, "auto"), (0.02, "holm"), (0.02, "none"), (0.05, "auto")]
)
def test_on_dl_2020_no_verdict_of_any_pair_contradicts_its_interval(dl20, tmp_path, margin, correction):
    asked = ["--margin", f"nDCG@10={margin}", "--margin", f"RR(rel=2)@10={margin}", "--correction", correction]
    rows = rows_of(tmp_path, *dl20, "-m", "nDCG@10", "-m", "RR(rel=2)@10", "--pairs", "all", *asked)
    assert len(rows) == 2 * 10
    assert all(row["family"] == 20 and row["margin"] == margin and row["is_margin_declared"] is False for row in rows)
    assert [row for row in rows if not is_coherent(row)] == []
    assert all(row["detectable"] > 0 for row in rows if row["verdict"] == "cannot tell")
    assert {row["verdict"] for row in rows} >= {"cannot tell", "better"}


def test_on_dl_2020_a_large_p_alone_never_makes_two_runs_equivalent(dl20, tmp_path):
    rows = rows_of(tmp_path, *dl20, "-m", "nDCG@10", "--pairs", "all")
    unsure = [row for row in rows if row["p"] > 0.05]
    assert unsure
    assert {row["verdict"] for row in unsure} == {"cannot tell"}


def test_the_worked_example_of_the_guide_is_what_the_program_says(dl20, tmp_path):
    guide = guides.find("verdicts").markdown
    lines = [line for line in guide.splitlines() if re.match(r"\| [\w-]+ against [\w-]+ \|", line)]
    found = rows_of(tmp_path, *dl20, "-m", "nDCG@10", "--pairs", "all", "--margin", "nDCG@10=.02")
    rows = {frozenset((row["system"], row["against"])): row for row in found}
    assert len(lines) == 5
    for line in lines:
        pair, difference, p, paper, interval, adjusted, ours = (cell.strip() for cell in line.strip("|").split("|"))
        right, left = pair.split(" against ")
        row = rows[frozenset((right, left))]
        sign = 1 if row["system"] == right else -1
        ends = sorted(round(sign * row[end], 4) for end in ("judged_low", "judged_high"))
        assert [float(text) for text in interval.strip("[]").replace("−", "-").split(",")] == ends
        assert float(difference.replace("−", "-")) == round(sign * row["difference"], 4)
        assert (row["p"] < 0.001) if p == "<.001" else float(p) == round(row["p"], 3)
        assert paper == ('"on par"' if row["p"] > 0.05 else "better" if sign * row["difference"] > 0 else "worse")
        assert ours.split(";")[0] == row["verdict"]
        corrected = row["p_corrected"]
        assert (corrected < 0.001) if adjusted == "<.001" else float(adjusted) == round(corrected, 3)
        for number in re.findall(r"takes (\d+) queries", ours):
            assert int(number) == row["queries_for_margin"]


def test_the_table_names_family_method_and_what_each_verdict_rests_on(dl20, tmp_path):
    out = cerank(
        tmp_path, "compare", *dl20, "-m", "nDCG@10", "--margin", "nDCG@10=.05", "--reasons", "--format", "table"
    )
    shown = " ".join(out.stdout.split())
    assert re.search(r"4 comparisons: .*5 %", shown)
    assert "margin for nDCG@10: ±0.05, " in shown
    assert "tasb against ada2, nDCG@10 on qrels: cannot tell" in shown
    machines = cerank(tmp_path, "compare", *dl20, "-m", "nDCG@10", "--format", "tsv")
    assert "4 comparisons: " in machines.stderr
    latex = cerank(tmp_path, "compare", *dl20, "-m", "nDCG@10", "--format", "latex")
    assert "\\item 4 comparisons: " in latex.stdout


@pytest.mark.parametrize("width", [40, 78, 140])
def test_a_narrow_terminal_loses_columns_and_never_a_verdict(dl20, tmp_path, width):
    asked = ["-m", "nDCG@10", "--margin", "nDCG@10=.3", "--format", "table"]
    out = cerank(tmp_path, "compare", *dl20, *asked, COLUMNS=str(width)).stdout
    is_stacked = width < 70
    assert (re.search(r"\+[0-9]+ columns?: ", out) is not None) == (70 <= width < 140)
    assert is_stacked == ("verdict: " in out)
    assert max(map(len, out.splitlines())) <= width
    if not is_stacked:
        verdicts = [row["verdict"] for row in rows_of(tmp_path, *dl20, *asked[:4])]
        table = " ".join(out.split("4 comparisons")[0].split())  # a long verdict stands on two lines, cut at a space
        assert table.count(" equivalent ") == verdicts.count("equivalent")
        assert table.count(", but by ") == verdicts.count("different but negligible")


def test_the_full_comparison_can_be_computed_again_from_what_is_printed(dl20, tmp_path):
    import msgspec

    text = cerank(tmp_path, "compare", *dl20, "-m", "nDCG@10", "--full", "--secondary").stdout
    found = msgspec.json.decode(text, type=Comparison)
    assert len(found.systems[0].measured[0].values["nDCG@10"]) == 54
    assert compare(found.systems, found.measures, conditions=found.conditions, terms=found.terms) == found


def test_files_hold_no_seed_that_could_speak_of_a_recipe(dl20, tmp_path):
    refused = cerank(tmp_path, "compare", *dl20, "--claim", "recipes", code=2)
    assert "LABEL=RUN,RUN,..." in refused.stderr


def test_secondary_tests_and_condensed_measures_come_when_asked_for(dl20, tmp_path):
    out = cerank(tmp_path, "compare", *dl20[:2], *dl20[-2:], "-m", "nDCG@10", "--judged-only", "--secondary", "--json")
    found = json.loads(out.stdout)
    assert [row["measure"] for row in found["secondary"]] == ["nDCG@10", "nDCG(judged_only=True)@10"]
    assert all(0 < row["randomization"] <= 1 for row in found["secondary"])


def test_the_default_measures_can_be_condensed(dl20, tmp_path):
    rows = rows_of(tmp_path, *dl20, "--pairs", "all", "--correction", "max-t", "--margin", "nDCG@10=.02", "--condensed")
    assert len(rows) == 4 * 10
    condensed = {"nDCG(judged_only=True)@10", "RR(rel=2,judged_only=True)@10"}
    assert {row["measure"] for row in rows} == {"nDCG@10", "RR(rel=2)@10"} | condensed  # DL's grades go to 3


def test_power_by_numbers_and_by_rankings(dl20, tmp_path):
    (row,) = json.loads(cerank(tmp_path, "power", "--queries", 43, "--sd", ".10", "--delta", ".01", "--json").stdout)
    assert row["smallest_difference"] == pytest.approx(0.0437, abs=6e-5)
    assert row["smallest_margin"] == pytest.approx(0.0453, abs=2e-4)
    assert row["queries_for_difference"] == 787
    (row,) = json.loads(cerank(tmp_path, "power", *dl20[-4:], "-m", "nDCG@10", "--margin", ".05", "--json").stdout)
    assert (row["left"], row["right"], row["queries"], row["spread"]) == ("splade-pp-ed", "tasb", 54, "measured")
    assert row["can_show"] is True


def test_seeds_are_merged_and_a_margin_of_the_recipe_is_marked_as_declared(place):
    rows = rows_of(place, "cl=a1,a2", "kd=b1,b2", "--claim", "recipes", "-m", "nDCG@10")
    assert {(row["system"], row["against"], row["seeds"], row["queries"]) for row in rows} == {("kd", "cl", 2, 12)}
    assert {(row["margin"], row["is_margin_declared"], row["claim"]) for row in rows} == {(0.02, True, "recipes")}
    out = cerank(place, "compare", "a1", "b1", "--format", "table")
    assert re.search(r"margin for nDCG@10: ±0\.02, .*2026-01-02T03:04:05\+00:00", out.stdout)


def test_a_dry_run_says_whether_the_queries_can_show_the_margin(place):
    dry = ["--dry-run", "--pairs-per-second", "100"]  # nothing is measured
    out = cerank(place, "run", "--recipe", "declared.toml", *dry, "--json")
    rows = json.loads(out.stdout)["power"]
    assert {(row["measure"], row["margin"], row["queries"], row["can_show"]) for row in rows} == {
        ("nDCG@10", 0.02, 12, False),
        ("RR@10", None, 12, None),
    }
    assert {row["comparison"] for row in rows} == {"stage against stage", "stage against first stage"}
    assert all(row["sd_low"] <= row["sd_high"] and row["spread"] == "earlier runs of this lab" for row in rows)
    asked = ["--set", 'evaluate.margins={"nDCG@10"=0.9, "RR@10"=0.01}', *dry, "--format", "table"]
    out = cerank(place, "run", "--recipe", "declared.toml", *asked)
    text = " ".join(out.stdout.split())  # lines end where the terminal does
    high = text.partition("stage against stage by nDCG@10 on 12 queries of data[70%:]")[2].partition(" against ")[0]
    assert "±0.9" in high
    low = text.partition("stage against stage by RR@10 on 12 queries of data[70%:]")[2].partition(" against ")[0]
    assert "±0.01" in low


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["compare", "a1", "b1", "--margin", "nDCG@10"], "'nDCG@10' is not a margin"),
        (["compare", "a1", "b1", "--margin", "P@5=.1"], "a margin for P@5: it is not compared"),
        (["compare", "a1", "cl=b1,b2", "--seeds", "stack"], "cannot be combined by 'stack'"),
        (["compare", "a1", "cl=b1,b2:contrastive"], "stage: distill against contrastive"),
        (["compare", "a1", "b1", "--claim", "recipes"], "at least 2 seeds of each"),
        (["compare", "a1", "b1", "--family", "2"], "the declared family has 2 comparisons, and 4 are shown"),
        (["compare", "a1", "b1", "--correction", "max-t", "--claim", "recipes"], "at least 2 seeds of each"),
        (["compare", "a1", "b1", "--full", "--format", "tsv"], "--full prints JSON, not tsv"),
        (["compare", "a1", "b1", "--correction", "tukey"], "'tukey'"),
        (
            ["compare", "a1", "b1", "--margin", "nDCG@10=2"],
            "a margin of 2 for nDCG@10 calls any two systems equivalent",
        ),
        (["power", "--queries", "43", "--sd", "2"], "an sd of at most 1.0118 on 43 queries"),
        (
            ["power", "--queries", "43", "--sd", ".1", "--margin", "2"],
            "a difference of 2 is beyond what nDCG@10 allows",
        ),
        (["power"], "the number of queries is missing"),
        (["power", "--queries", "43", "--sd", "0"], "the sd of the differences is a number above 0"),
        (["power", "--queries", "43", "--sd", ".1", "--delta", "nan"], "a number above 0 is wanted"),
        (["power", "a1", "b1", "--sd", ".1"], "--sd and rankings both give the standard deviation"),
        (
            ["run", "--recipe", "declared.toml", "--set", 'evaluate.margins={"P@5"=0.1}', "--dry-run"],
            "evaluate.margins",
        ),
        (["run", "--recipe", "declared.toml", "--set", 'evaluate.margins={"RR@10"=0}', "--dry-run"], "margins.RR@10"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_words(place, arguments, what):
    assert what in cerank(place, *arguments, code=2).stderr
