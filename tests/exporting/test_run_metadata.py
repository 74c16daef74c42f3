"""The header of ir_metadata in a re-ranked run: YAML in comments, and nothing that was not measured or given."""

from __future__ import annotations

import gzip
import shlex
import sys
from pathlib import Path

import msgspec
import pytest
import yaml

from cerank.errors import UsageError
from cerank.exporting import resource_meter
from cerank.exporting.resource_meter import ResourceMeter, Resources
from cerank.exporting.run_metadata import MetadataRequest, RerankedRun, check_request, header, notes
from cerank.trec import text_io
from cerank.trec.ingest import ingest_run
from cerank.trec.read_columns import read_columns
from cerank.trec.text_io import read_run, run_of, write_run
from tests.refusals import refused

RUN = RerankedRun(
    tag="brisk-otter",
    model="http://me:secret@models.example/rerank?key=1",
    model_sha256="",
    precision="",
    device="",
    threads=0,
    first_stage=f"{Path.home()}/runs/bm25.run",
    first_stage_sha256="ab",
    depth=100,
    dataset="trec-dl-2019",
    ir_datasets="msmarco-passage/trec-dl-2019/judged",
    documents_sha256="cd",
    queries=43,
    pairs=4300,
    pairs_scored=4300,
)
USED = Resources(seconds=1.5, user=2.25, system=0.25, memory=3 << 20, gpu_memory=None, gpu_joules=None, cpu_joules=12.4)


def _values(lines: list[str]):
    assert (lines[0], lines[-1]) == ("# ir_metadata.start", "# ir_metadata.end")
    assert all(line.startswith("# ") for line in lines)
    return yaml.safe_load("\n".join(line.removeprefix("# ") for line in lines[1:-1]))


def test_the_header_has_the_parts_of_primad_and_what_was_measured() -> None:
    given = MetadataRequest(command=["cerank", "rerank", "a b"], actor="Ada: 'L' # 日本", team="x", goal="- a")
    values = _values(header(given, RUN, USED))
    parts = ["platform", "research goal", "implementation", "method", "actor", "data", "resources"]
    assert list(values) == ["schema-version", "run-version", "tag", *parts]
    assert values["actor"] == {"name": "Ada: 'L' # 日本", "team": "x"}
    assert values["research goal"] == {"description": "- a"}
    assert values["implementation"]["executable"] == {"cmd": "cerank rerank 'a b'"}
    assert values["data"]["test collection"]["ir_datasets"] == "https://ir-datasets.com/msmarco-passage"
    assert values["resources"] == {
        "pairs": {"ranked": 4300, "scored": 4300},
        "runtime": {"wallclock": "1500 ms", "user": "2250 ms", "system": "250 ms"},
        "ram": {"used process": {"max": "3072 KB"}},
        "cpu": {"energy system": "12 J"},
    }
    first, second = values["method"]["retrieval"]
    assert (second["reranks"], first["rerankCutoff"]) == (first["name"], 100)


def test_nothing_is_invented_and_no_password_or_home_folder_is_told() -> None:
    lines = header(MetadataRequest(command=["cerank", "rerank", RUN.model]), RUN, None)
    values = _values(lines)
    assert "actor" not in values
    assert "research goal" not in values
    assert "resources" not in values
    text = "\n".join(lines)
    assert "secret" not in text
    assert "key=1" not in text
    assert str(Path.home()) not in text
    assert values["method"]["retrieval"][0]["method"] == "~/runs/bm25.run"
    assert "other commands" in notes(RUN, None)[0]
    cached = notes(msgspec.structs.replace(RUN, pairs_scored=4000), USED)
    assert cached[0].startswith("300 of 4,300 pairs")


def test_only_the_home_folder_itself_is_shortened_and_passwords_go_wherever_they_are() -> None:
    home = str(Path.home())
    words = [f"/mnt{home}/model", f"--dataset={home}/data", home, "--at=http://me:secret@host/x"]
    command = _values(header(MetadataRequest(command=words), RUN, None))["implementation"]["executable"]["cmd"]
    assert shlex.split(command) == [f"/mnt{home}/model", "--dataset=~/data", "~", "--at=http://host/x"]


def test_a_run_with_a_header_reads_as_the_run_without(tmp_path, monkeypatch) -> None:
    ranking = run_of([("q1", "d1", 0.5), ("q1", "d2", 2.0)], tag="mine", where="rows").ranking
    lines = header(MetadataRequest(command=["cerank"], team="日本"), RUN, USED)
    plain, headed = write_run(ranking, "mine"), write_run(ranking, "mine", comments=lines)
    assert gzip.decompress(headed) == "".join(f"{line}\n" for line in lines).encode() + gzip.decompress(plain)
    (tmp_path / "a.run.gz").write_bytes(headed)
    run = read_run(tmp_path / "a.run.gz")
    assert (run.ranking, run.tag, list(run.comments)) == (ranking, "mine", lines)
    assert read_columns(tmp_path / "a.run.gz").ranking == ranking
    monkeypatch.setattr(text_io, "COLUMNS_PACKED", 0)
    assert read_run(tmp_path / "a.run.gz").ranking == ranking
    assert dict(ingest_run(tmp_path / "a.run.gz", tmp_path / "cache")) == dict(ranking)


@pytest.mark.parametrize("option", ["actor", "team", "goal"])
@pytest.mark.parametrize("text", ["two\nlines", "\x1b[31m", "x" * 2001])
def test_a_text_that_is_no_line_is_refused(option, text) -> None:
    with refused(UsageError, "text-not-plain", f"--{option}"):
        check_request(MetadataRequest(command=["cerank"], **{option: text}))


class _Tracker:
    """What tirex-tracker gives: a mapping of measures to entries after `stop`."""

    class Measure:
        """Its measures."""

        CPU_ENERGY_SYSTEM_JOULES = type("Member", (), {"name": "CPU_ENERGY_SYSTEM_JOULES"})()

    def __init__(self, value: str) -> None:
        self.value = value

    def start_tracking(self, measures):
        self.measures = measures
        return self

    def stop(self):
        return {key: type("Entry", (), {"value": self.value})() for key in self.measures}


@pytest.mark.parametrize(("value", "joules"), [('"41.5"', 41.5), ("41.5", 41.5), ("null", None), ("", None)])
def test_energy_is_what_the_counters_say_or_nothing(monkeypatch, value, joules) -> None:
    monkeypatch.setitem(sys.modules, "tirex_tracker", _Tracker(value))
    used = ResourceMeter("cpu").stop()
    assert used.cpu_joules == joules
    assert bool(used.notes) == (joules is None)


def test_without_the_library_time_and_memory_are_measured_all_the_same(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tirex_tracker", None)
    monkeypatch.setattr(resource_meter, "gpu_joules", lambda _: 100.0)
    meter = ResourceMeter("cuda")
    monkeypatch.setattr(resource_meter, "gpu_joules", lambda _: 160.5)
    used = meter.stop()
    assert (used.cpu_joules, used.gpu_joules) == (None, 60.5)
    assert used.seconds > 0
    assert used.memory
    assert used.memory > 1 << 20
    assert "cerank[energy]" in used.notes[0]
