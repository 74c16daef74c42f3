"""Every form of a report: whole, traceable, and nothing in it that a browser, LaTeX or a spreadsheet would act upon."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib.util import find_spec
from xml.etree import ElementTree

import msgspec
import pytest
from statsmodels.stats.multitest import multipletests
from typer.testing import CliRunner

from cerank.app.report import html, latex, markdown, table_layout, write_report
from cerank.app.report.build_report import build_report
from cerank.app.report.report_data import Report, ResultsTable
from cerank.app.report.report_scope import ReportRequest
from cerank.cli.typer_app import app
from cerank.errors import UsageError
from cerank.files.hashing import sha256_file
from cerank.runs import test_set_looks
from tests.refusals import refused

from .made_matrix import made_matrix, record_training

HOSTILE = '=cmd|"/c calc"!A1 <script>alert(1)</script> \\input{x} $x^2$ & 100% _ # ~ \x1b[31m 漢 é `b` |'


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    found = made_matrix(tmp_path_factory.mktemp("writing"))
    record_training(found.runs["roberta", "ecir2025-cl-kd"])
    return found


@pytest.fixture(scope="module")
def whole(lab) -> Report:
    return build_report(lab.settings, ReportRequest(names=("grid",), command="cerank report grid --output x"))


@pytest.fixture(scope="module")
def hostile(whole: Report) -> Report:
    """The report with a model, a test set, a first stage and a note that mean harm."""
    grids = tuple(_poisoned(grid) for grid in whole.grids)
    events = (("shared queries", HOSTILE),)
    runs = tuple(msgspec.structs.replace(run, label=HOSTILE, command=HOSTILE, events=events) for run in whole.runs)
    return msgspec.structs.replace(whole, title=HOSTILE, grids=grids, runs=runs, notes=(HOSTILE,))


def _poisoned(grid: ResultsTable) -> ResultsTable:
    lines = [
        msgspec.structs.replace(
            line, model=msgspec.structs.replace(line.model, recipe=HOSTILE, label=HOSTILE, base=HOSTILE)
        )
        for line in grid.lines
    ]
    places = [
        msgspec.structs.replace(
            place, heading=HOSTILE, condition=msgspec.structs.replace(place.condition, first_stage=HOSTILE)
        )
        for place in grid.places
    ]
    return msgspec.structs.replace(grid, lines=tuple(lines), places=tuple(places), caption=(HOSTILE,))


# --- LaTeX


def test_latex_is_ascii_and_balanced_whatever_the_labels(hostile: Report) -> None:
    text = latex.document(hostile)
    assert text.isascii()
    bare = re.sub(r"\\[{}\\%&]", "", text)
    assert bare.count("{") == bare.count("}")
    assert "\\input" not in text.replace("\\textbackslash{}input", "")
    assert text.count("\\begin{") == text.count("\\end{")
    assert "$\\langle$6f22$\\rangle$" in text
    assert "\\'{e}" in text


def test_every_row_of_a_latex_table_has_as_many_cells_as_it_has_columns(whole: Report) -> None:
    text = latex.table(whole.grids[0])
    (spec,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert len(spec) == 1 + len(whole.grids[0].places)
    body = text.partition("\\midrule")[2].partition("\\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
    assert len(rows) == 7
    assert {row.count(" & ") for row in rows} == {len(spec) - 1}
    assert len(re.findall(r"\\textbf\{\d\.\d{4}\}", body)) >= len(whole.grids[0].places)
    assert "\\cmidrule(lr){2-3} \\cmidrule(lr){4-5}" in text
    assert "$^{\\downarrow}$" in body


def test_more_columns_than_a_page_holds_become_tables_below_each_other(whole: Report) -> None:
    (place, *_) = whole.grids[0].places
    conditions = [msgspec.structs.replace(place.condition, first_stage=f"stage {number}") for number in range(5)]
    places = [msgspec.structs.replace(place, condition=one) for one in conditions for _ in range(4)]
    assert [len(block) for block in table_layout.blocks(places)] == [12, 8]
    assert [at for block in table_layout.blocks(places) for at in block] == list(range(20))
    assert [len(block) for block in table_layout.blocks(places[:4] * 7)] == [12, 12, 4]


def test_the_document_compiles_where_there_is_a_latex(hostile: Report, tmp_path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex here")
    (tmp_path / "report.tex").write_text(latex.document(hostile))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    if "booktabs.sty' not found" in done.stdout:
        pytest.skip("this LaTeX has no booktabs")
    assert done.returncode == 0, done.stdout[-2000:]


# --- HTML


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.text += data


def test_html_runs_loads_and_links_nothing(hostile: Report) -> None:
    page = Page()
    page.feed(html.document(hostile))
    assert not {"script", "link", "img", "iframe", "object", "a", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in {"src", "href", "style"}]
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    assert "<script>alert(1)</script>" in page.text
    assert "\x1b" not in page.text
    assert "prefers-color-scheme:dark" in html.document(hostile)


def test_html_holds_every_value_its_sign_and_what_it_rests_on(whole: Report) -> None:
    text = html.document(whole)
    for grid in whole.grids:
        for line in grid.lines:
            for cell in line.cells:
                assert f"{cell.value:.4f}" in text
    assert text.count('class="sign down">↓') == sum(
        cell.sign == "worse" for grid in whole.grids for line in grid.lines for cell in line.cells
    )
    assert re.search(r"interval[^\[]{0,45}\[[+-]", text)
    assert text.count("<svg") == len(whole.curves) > 1


# --- Markdown and CSV


def test_markdown_keeps_its_cells(hostile: Report) -> None:
    text = markdown.document(hostile)
    assert "\\<script\\>" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_csv_has_a_line_a_cell_in_full_precision_and_no_formula(whole: Report, hostile: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(write_report.as_text(whole, "csv"))))
    assert len(rows) == sum(len(grid.lines) * len(grid.places) for grid in whole.grids)
    for row in whole.comparison.rows:
        (line,) = [
            one
            for one in rows
            if (one["model"], one["measure"], one["first_stage"]) == (row.right, row.measure, row.condition.first_stage)
            and one["test"].endswith(row.condition.dataset)
        ]
        assert float(line["difference"]) == row.paired.difference
        assert float(line["p_corrected"]) == row.p_corrected
        assert (line["against"], line["verdict"]) == (row.left, row.verdict)
    texts = [cell for line in csv.reader(io.StringIO(write_report.as_text(hostile, "csv"))) for cell in line]
    assert not [cell for cell in texts if cell[:1] in {"=", "+", "@"}]


# --- the folder


def test_a_folder_holds_every_form_the_curves_and_the_hash_of_all_behind_it(lab, whole: Report, tmp_path) -> None:
    folder = write_report.save(whole, tmp_path / "report")
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"report.html", "report.md", "report.tex", "cells.csv", "report.json", "sources.csv"} <= names
    assert {"tables/table-ndcg-10.tex", "tables/table-rr-10.tex", "curves/curves-roberta.svg"} <= names
    assert len([name for name in names if name.startswith("recipes/")]) == 6
    assert ("curves/curves-roberta.png" in names) == (find_spec("cairosvg") is not None)
    kept = json.loads((folder / "report.json").read_text())
    assert kept["family"] == whole.family
    for source in kept["sources"]:
        assert sha256_file(lab.settings.lab / source["path"]) == source["sha256"]
    cell = kept["grids"][0]["lines"][1]["cells"][0]
    assert cell["value"] == whole.grids[0].lines[1].cells[0].value


def test_the_recipes_beside_a_report_are_those_of_its_runs(whole: Report, tmp_path) -> None:
    from cerank import recipes

    folder = write_report.save(whole, tmp_path / "report")
    for run in whole.runs:
        path = re.findall(r"--recipe (\S+)", run.command)[0]
        loaded = recipes.load(str(folder / path)).recipe
        assert "auto" in loaded.evaluate.measures  # each test set has measures of its own; all of them suit none
        assert f"{loaded.base.rpartition('/')[2]} {loaded.name}" == run.model


def test_rows_of_one_recipe_with_other_settings_can_be_told_apart_in_every_form(tmp_path) -> None:
    from tests.app.made_runs import made_run
    from tests.worker.small import small_plan

    plan, settings = small_plan(tmp_path, force=["shared_queries"])
    stages = {
        name: msgspec.structs.replace(one, learning_rate=2 * one.learning_rate)
        for name, one in plan.recipe.stages.items()
    }
    faster = msgspec.structs.replace(plan, recipe=msgspec.structs.replace(plan.recipe, stages=stages))
    runs = [made_run(settings, plan, "slow"), made_run(settings, faster, "fast")]
    found = build_report(settings, ReportRequest(names=tuple(run.name for run in runs)))
    for form in ("html", "markdown", "latex"):
        text = write_report.as_text(found, form)
        (table,) = re.findall(r"first stage.*?(?:</table>|mean over|bottomrule)", text, re.DOTALL)[:1]
        assert "small (slow)" in table
        assert "small (fast)" in table


def test_one_form_alone_is_that_form_with_its_sources(whole: Report, tmp_path) -> None:
    folder = write_report.save(whole, tmp_path / "report", ("latex",))
    assert not list(folder.glob("*.html"))
    assert (folder / "report.json").is_file()


def test_a_report_is_written_over_only_when_asked_and_nothing_else_ever(whole: Report, tmp_path) -> None:
    folder = write_report.save(whole, tmp_path / "report")
    with refused(UsageError, "report-folder", "--replace"):
        write_report.save(whole, folder)
    (folder / "old.txt").write_text("old")
    write_report.save(whole, folder, replace=True)
    assert not (folder / "old.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    (tmp_path / "mine").mkdir()
    with refused(UsageError, "report-folder"):
        write_report.save(whole, tmp_path / "mine", replace=True)
    with refused(UsageError, "report-folder"):
        write_report.save(whole, tmp_path / "no" / "report")


# --- the command


def cerank(*words: str) -> None:
    app(list(words), standalone_mode=False)


def test_the_command_prints_a_form_or_writes_a_folder(lab, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("CERANK_LAB", str(lab.settings.lab))
    cerank("report", "grid", "--format", "latex")
    assert capsys.readouterr().out.startswith("\\documentclass")
    cerank("report", "grid", "--correction", "bonferroni", "--output", str(tmp_path / "made"), "--no-curves")
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path / 'made'}\n"
    assert "32 tests" in shown.err
    assert "Bonferroni's correction" in (tmp_path / "made" / "report.md").read_text()
    assert not (tmp_path / "made" / "curves").exists()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--format", "docx"), "unknown-format docx"),
        (("--replace",), "option-needs-output --output"),
        (("--output", "/no/such/place"), "folder-missing /no/such/place"),
    ],
)
def test_the_command_refuses_before_it_measures(lab, words, what, monkeypatch) -> None:
    monkeypatch.setenv("CERANK_LAB", str(lab.settings.lab))
    with refused(UsageError, *what.split()):
        cerank("report", "grid", *words)


# --- pictures


def test_a_picture_is_xml_with_a_line_a_run_a_gap_between_stages_and_marks_where_they_start(whole: Report) -> None:
    curve, *forests = whole.curves
    assert [forest.name for forest in forests] == [f"forest-{at}" for at in range(1, len(forests) + 1)]
    root = ElementTree.fromstring(curve.svg)
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    paths = [path.get("d") for path in root.iter(f"{space}path")]
    assert paths[0].count("M") == 2  # the loss of each stage is a line of its own
    assert paths[0].count("L") == 2 * 39
    texts = ["".join(text.itertext()) for text in root.iter(f"{space}text")]
    assert {"contrastive", "distill", "roberta ecir2025-cl-kd"} <= set(texts)
    assert len(list(root.iter(f"{space}circle"))) == 2  # a validation a stage


def test_a_picture_of_hostile_labels_is_still_a_picture() -> None:
    import numpy as np

    from cerank.app.report.svg_plot import Panel, PlottedLine, svg

    lines = tuple(PlottedLine(f"{HOSTILE} {n}", np.arange(3.0), np.array([1.0, np.nan, np.inf])) for n in range(9))
    root = ElementTree.fromstring(svg([Panel(HOSTILE, HOSTILE, lines, ((0.0, HOSTILE),))]))
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))
    pens = {(line.get("stroke"), line.get("stroke-dasharray")) for line in root if line.tag.endswith("line")}
    assert len(pens) == 7


def test_the_methods_cite_exactly_what_was_done_and_the_bibliography_holds_no_more(whole: Report) -> None:
    found = whole.methods
    assert found is not None
    assert set(re.findall(r"@\w+\{(\w+),", found.bibliography)) == set(found.keys)
    assert {"cerank", "macavaney2022", "virtanen2020", "jarvelin2002"} <= set(found.keys)
    method = {"max-t": "westfall1993", "holm": "holm1979"}[whole.comparison.method]
    assert method in found.keys
    assert ("schuirmann1987" in found.keys) == bool(whole.comparison.terms.margins)
    assert ("viechtbauer2005" in found.keys) == (whole.pooled is not None)
    assert f"{whole.comparison.family} comparisons" in found.plain
    paragraph = latex.methods_paragraph(found)
    assert paragraph.isascii()
    assert set(re.findall(r"\w+", " ".join(re.findall(r"\\cite\{([^}]*)\}", paragraph)))) == set(found.keys)


def test_text_from_outside_is_no_citation(whole: Report) -> None:
    poisoned = msgspec.structs.replace(whole.methods, sentences=("nDCG@10 on [@evil2000] and [@holm1979; x].",))
    assert poisoned.keys == ()
    assert "\\cite" not in latex.methods_paragraph(poisoned)


def test_every_table_keeps_its_notes_in_a_threeparttable_and_differences_have_their_intervals(whole: Report) -> None:
    for grid in whole.grids:
        text = latex.table(grid)
        assert text.count("\\item") == len(grid.caption) - 1
        assert latex.escaped(grid.caption[-1]) in text
    for measure in dict.fromkeys(row.measure for row in whole.comparison.rows):
        text = latex.differences(whole.comparison, measure)
        rows = [row for row in whole.comparison.rows if row.measure == measure]
        assert text.count(" & ") > 5 * len(rows)
        assert f"{abs(rows[0].low):.4f}" in text
        assert "\\begin{tablenotes}" in text


def test_differences_are_pooled_over_the_test_sets_with_a_forest_each(whole: Report) -> None:
    assert whole.pooled is not None
    assert {len(row.collections) for row in whole.pooled.rows if not row.domain} == {2}
    ours = {row.collections[0].collection for row in whole.pooled.rows if row.domain == "in-domain"}
    assert ours == {"data[70%:]"}  # the runs were trained on other queries of that collection
    assert [curve.name for curve in whole.curves if curve.name.startswith("forest")]
    assert whole.pooled.rows[0].right in html.document(whole)


def test_a_report_is_a_look_with_its_pooled_lines_and_no_new_one_when_it_is_written_again(lab, whole) -> None:
    places = ["--lab", str(lab.settings.lab), "--cache", str(lab.settings.cache)]
    for _ in range(2):
        assert CliRunner().invoke(app, ["report", "grid", "--no-curves", *places]).exit_code == 0
    (look,) = test_set_looks.load_all(lab.settings.lab)
    several = [row for row in whole.pooled.rows if len(row.collections) > 1 or len(row.collections[0].first_stages) > 1]
    assert (look.by, len(look.pooled)) == ("report", len(several))
    for keys in look.comparisons.values():  # a line over both test sets is on the judgments of each
        assert set(look.pooled) & set(keys)


@pytest.mark.parametrize(
    ("correction", "method", "cited"), [("bonferroni", "bonferroni", "dunn1961"), ("bh", "fdr_bh", "benjamini1995")]
)
def test_pooled_lines_are_adjusted_as_the_report_is_asked_to(lab, correction, method, cited) -> None:
    request = ReportRequest(names=("grid",), correction=correction, has_curves=False)
    told = build_report(lab.settings, request)
    ps = [row.judgment.p for row in told.pooled.rows]
    expected = multipletests(ps, method=method)[1]
    assert [row.judgment.p_corrected for row in told.pooled.rows] == pytest.approx(list(expected))
    assert cited in told.methods.keys
    assert "holm1979" not in told.methods.keys


def test_which_test_sets_are_in_domain_can_be_said_and_one_that_was_not_measured_is_refused(lab, whole) -> None:
    others = {each.collection for each in whole.pooled.rows[0].collections} - {"data[70%:]"}
    told = build_report(lab.settings, ReportRequest(names=("grid",), in_domain=tuple(others), has_curves=False))
    ours = {each.collection for row in told.pooled.rows if row.domain == "in-domain" for each in row.collections}
    assert ours == others
    with refused(UsageError, "not-tested", "elsewhere"):
        build_report(lab.settings, ReportRequest(names=("grid",), in_domain=("elsewhere",), has_curves=False))
