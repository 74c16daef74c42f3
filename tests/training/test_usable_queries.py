"""Which queries a stage can use is counted once for a training set on disk, and again where it may be others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cerank.core.rankings import Ranking
from cerank.datasets import local_folders
from cerank.datasets.dataset import Dataset
from cerank.datasets.open_datasets import open_dataset
from cerank.recipes.schema import Stage
from cerank.recipes.sections.negative_specs import NegativeSource
from cerank.retrieval import first_stage
from cerank.training.sampling.negative_rankings import usable_record
from cerank.training.sampling.sampler import DECIDING_KEYS, Sampler, TrainingPool
from cerank.trec import open_run, query_places

STAGE = Stage(epochs=2.0, group_size=4, groups_per_step=4, window=(1, 5), query_order="computed")


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((local_folders, "LARGE_QUERIES"), (open_run, "LARGE"), (query_places, "MANY_QUERIES")):
        monkeypatch.setattr(module, name, 1)


def folder_of(folder: Path) -> Path:
    (folder / "runs").mkdir(parents=True)
    (folder / "docs.tsv").write_text("".join(f"d{doc}\ttext {doc}\n" for doc in range(20)))
    (folder / "queries.tsv").write_text("".join(f"q{at}\tquery {at}\n" for at in range(70)))
    qrels = [f"q{at} 0 d{at % 20} {at % 3}\n" for at in range(65)]
    qrels += [f"q{at} 0 d{(at + 3) % 20} 0\n" for at in range(0, 65, 2)]
    (folder / "qrels").write_text("".join(qrels))
    rows = [f"q{at} Q0 d{(at + 3 * rank) % 20} {rank} {9 - rank} x\n" for at in range(60) for rank in range(at % 7)]
    (folder / "runs" / "first.run").write_text("".join(rows))
    return folder


def test_ties_of_a_teacher_are_counted_once_for_all_that_decides_them(tmp_path: Path) -> None:
    folder, cache = folder_of(tmp_path / "set"), tmp_path / "cache"
    run = folder / "runs" / "first.run"
    run.write_text("".join(f"q{at} Q0 d{doc} 1 {(at + doc) % 3} x\n" for at in range(50) for doc in range(6)))
    dataset = open_dataset(str(folder), cache)
    stages = [
        Stage(source="teacher", loss="ranknet", window=(1, last), epochs=epochs, groups_per_step=2)
        for last, epochs in ((6, 1.0), (4, 1.0), (6, 0.2))
    ]
    found = []
    for _ in range(2):
        for stage in stages:
            ranking = first_stage.candidates(dataset, "first", 6, cache)
            asked = []

            def scores(query: str, ranking: Ranking = ranking, asked: list[str] = asked) -> Sequence[float]:
                asked.append(query)
                return ranking.scores(query)

            record = usable_record(stage, dataset, ranking, {}, cache)
            pool = TrainingPool(
                query_ids=dataset.query_ids,
                qrels=dataset.qrels,
                ranking=ranking,
                has_text=lambda _: True,
                scores=scores,
                usable=record,
            )
            kept = Sampler("s", stage, 1, pool).teacher_ties()
            found.append((kept, bool(asked)))
            plain = msgspec.structs.replace(pool, usable=None)
            assert Sampler("s", stage, 1, plain).teacher_ties() == kept
    assert [was_asked for _, was_asked in found] == [True] * 3 + [False] * 3
    assert len({str(ties) for ties, _ in found}) == 3
    assert all(ties.tied for ties, _ in found)


class Watched(dict[str, Any]):
    """Judgments that know how often they were asked for."""

    def __init__(self, rows: Any) -> None:
        super().__init__(rows)
        self.asked = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.asked += 1
        return super().get(key, default)


def made(dataset: Dataset, stage: Stage, cache: Path, ranking: Ranking | None = None) -> tuple[Sampler, int]:
    """Return a sampler, and how many judgments were read while it was made."""
    candidates = first_stage.candidates(dataset, "first", stage.window[1], cache) if ranking is None else ranking
    sources = {"": candidates} if stage.negative_sources else {}
    qrels = Watched(dataset.qrels)
    pool = TrainingPool(
        query_ids=dataset.query_ids,
        qrels=qrels,
        ranking=candidates,
        has_text=dataset.documents.__contains__,
        sources=sources,
        usable=usable_record(stage, dataset, candidates, sources, cache),
    )
    sampler = Sampler("s", stage, 1, pool)
    return sampler, qrels.asked


def all_of(sampler: Sampler) -> object:
    return sampler.sampling, sampler.steps, list(sampler.usable), [sampler.groups(step) for step in range(1, 30)]


def test_a_second_start_reads_no_judgment_and_samples_the_same(tmp_path: Path) -> None:
    folder, cache = folder_of(tmp_path / "set"), tmp_path / "cache"
    first, asked = made(open_dataset(str(folder), cache), STAGE, cache)
    assert asked
    assert 0 < first.sampling.usable < first.sampling.queries
    again, asked = made(open_dataset(str(folder), cache), STAGE, cache)
    assert not asked
    assert all_of(again) == all_of(first)
    other = msgspec.structs.replace(STAGE, loss="ranknet", learning_rate=1e-3, groups_per_step=2)
    assert not made(open_dataset(str(folder), cache), other, cache)[1]  # keys that decide nothing here
    for record in cache.glob("usable-queries/*"):
        record.write_bytes(record.read_bytes()[:-9])
    mended, asked = made(open_dataset(str(folder), cache), STAGE, cache)
    assert asked
    assert all_of(mended) == all_of(first)
    assert not made(open_dataset(str(folder), cache), STAGE, cache)[1]


@pytest.mark.parametrize(
    "changed",
    [
        {"relevance": 2},
        {"unretrieved": "none"},
        {"unretrieved": "judged"},
        {"window": (1, 3)},
        {"window": (2, 5)},
        {"negatives_from": "judged"},
        {"group_size": 3},
        {"source": "teacher"},
        {"negative_sources": (NegativeSource(source="first-stage", ranks=(1, 2)),)},
    ],
    ids=str,
)
def test_other_settings_are_counted_for_themselves(tmp_path: Path, changed: dict[str, Any]) -> None:
    folder, cache, stage = folder_of(tmp_path / "set"), tmp_path / "cache", msgspec.structs.replace(STAGE, **changed)
    dataset = open_dataset(str(folder), cache)
    made(dataset, STAGE, cache)
    counted, _ = made(dataset, stage, cache)
    pool = TrainingPool(
        query_ids=dataset.query_ids,
        qrels=dataset.qrels,
        ranking=(ranking := first_stage.candidates(dataset, "first", stage.window[1], cache)),
        has_text=dataset.documents.__contains__,
        sources={"": ranking},
    )
    assert all_of(counted) == all_of(Sampler("s", stage, 1, pool))


def test_other_data_are_counted_for_themselves(tmp_path: Path) -> None:
    folder, cache = folder_of(tmp_path / "set"), tmp_path / "cache"
    made(open_dataset(str(folder), cache), STAGE, cache)
    changes: list[Callable[[], object]] = [
        lambda: (folder / "qrels").write_text((folder / "qrels").read_text() + "q66 0 d1 1\n"),
        lambda: (folder / "queries.tsv").write_text((folder / "queries.tsv").read_text() + "q70\tone more\n"),
        lambda: (folder / "runs" / "first.run").write_text(
            (folder / "runs" / "first.run").read_text() + "q69 Q0 d1 1 3 x\n"
        ),
        lambda: (folder / "docs.tsv").write_text((folder / "docs.tsv").read_text() + "d20\tone more\n"),
    ]
    for change in changes:
        change()
        assert made(open_dataset(str(folder), cache), STAGE, cache)[1]
        assert not made(open_dataset(str(folder), cache), STAGE, cache)[1]
    assert made(open_dataset(f"{folder}[:50%]", cache), STAGE, cache)[1]
    dataset = open_dataset(str(folder), cache)
    in_memory = Ranking(
        dict(dataset.run("first").ranking),
        {q: dataset.run("first").ranking.scores(q) for q in dataset.run("first").ranking},
    )
    for _ in range(2):  # a ranking in memory has no hash
        assert made(dataset, STAGE, cache, in_memory)[1]
        assert made(replace(dataset, queries=dict(dataset.queries)), STAGE, cache)[1]


@pytest.mark.parametrize(
    "sources", [(), (NegativeSource(source="first-stage", ranks=(1, 3)), NegativeSource(source="in-batch"))], ids=len
)
@pytest.mark.parametrize("source", ["labels", "teacher"])
def test_all_settings_that_are_read_in_counting_are_in_the_key(
    tmp_path: Path, source: str, sources: tuple[NegativeSource, ...]
) -> None:
    read: set[str] = set()

    class Noted(Stage, frozen=True, kw_only=True):
        def __getattribute__(self, name: str) -> Any:
            if not name.startswith("__"):
                read.add(name)
            return super().__getattribute__(name)

    settings = msgspec.structs.asdict(STAGE) | {"source": source, "negative_sources": sources, "unretrieved": "none"}
    dataset = open_dataset(str(folder_of(tmp_path / "set")), tmp_path / "cache")
    ranking = first_stage.candidates(dataset, "first", 5, tmp_path / "cache")
    pool = TrainingPool(
        query_ids=dataset.query_ids,
        qrels=dataset.qrels,
        ranking=ranking,
        has_text=lambda _: True,
        sources={"": ranking},
    )
    Sampler("s", Noted(**settings), 1, pool)
    fields = read & set(Stage.__struct_fields__)
    assert {"window", "source"} <= fields
    # these are read beside counting: for the order, the target, and what is refused
    beside = {"query_order", "without_pair", "loss", "losses", "targets", "teacher", "mean_over", "negatives"}
    assert fields <= {*DECIDING_KEYS, *beside}
