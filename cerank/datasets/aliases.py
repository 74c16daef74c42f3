"""Short names of datasets and first stages: what each stands for, its measures, and where its files are expected.

Invariant: a table and pure functions of it; nothing here opens a dataset or asks a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from cerank.errors import MissingError

RUNS = "runs"  # folder of the cache where TREC runs are placed: runs/DATASET/FIRST_STAGE.run or .run.gz

# DL's grades 0-3: 1 is "related", which is not relevant; TREC's own RR and AP count from 2
DL = ("nDCG@10", "RR(rel=2)@10", "AP(rel=2)")
DEV = ("nDCG@10", "RR@10", "AP")  # grades 0 and 1: rel=2 would make both 0 for every system
BEIR = ("nDCG@10",)
AUTO = "auto"  # in evaluate.measures: each test dataset's own


class DatasetAlias(msgspec.Struct, frozen=True):
    """A dataset known by a short name."""

    name: str
    id: str  # id in ir_datasets
    measures: tuple[str, ...]
    description: str


class FirstStageAlias(msgspec.Struct, frozen=True):
    """A first stage known by name; its runs come from elsewhere."""

    name: str
    description: str
    source: str  # how to get a run of it, in words


_MS = "msmarco-passage"
ALIASES: dict[str, DatasetAlias] = {
    entry.name: entry
    for entry in (
        DatasetAlias(
            "dl19", f"{_MS}/trec-dl-2019/judged", DL, "TREC Deep Learning 2019, passages, the 43 judged queries"
        ),
        DatasetAlias(
            "dl20", f"{_MS}/trec-dl-2020/judged", DL, "TREC Deep Learning 2020, passages, the 54 judged queries"
        ),
        DatasetAlias("dl-hard", f"{_MS}/trec-dl-hard", DL, "DL-HARD: 50 hard queries of both years"),
        DatasetAlias("dev-small", f"{_MS}/dev/small", DEV, "MS MARCO passages, the 6,980 queries of dev/small"),
        DatasetAlias(
            "msmarco-train", f"{_MS}/train/judged", DEV, "MS MARCO passages, the 502,939 judged training queries"
        ),
        DatasetAlias("climate-fever", "beir/climate-fever", BEIR, "BEIR's Climate-FEVER"),
        DatasetAlias("dbpedia", "beir/dbpedia-entity/test", BEIR, "BEIR's DBpedia-Entity, test queries"),
        DatasetAlias("nq", "beir/nq", BEIR, "BEIR's Natural Questions"),
        DatasetAlias("quora", "beir/quora/test", BEIR, "BEIR's Quora, test queries"),
        DatasetAlias("scidocs", "beir/scidocs", BEIR, "BEIR's SCIDOCS"),
        DatasetAlias("trec-covid", "beir/trec-covid", BEIR, "BEIR's TREC-COVID"),
        DatasetAlias("arguana", "beir/arguana", BEIR, "BEIR's ArguAna"),
    )
}
_BY_ID = {entry.id: entry for entry in ALIASES.values()}

_TRAIN = "msmarco-train"
FIRST_STAGES: dict[str, FirstStageAlias] = {
    entry.name: entry
    for entry in (
        FirstStageAlias(
            "bm25", "BM25 with k1 = 0.9 and b = 0.4", "any BM25 run, such as Pyserini's LuceneSearcher gives"
        ),
        FirstStageAlias("colbertv2", "ColBERTv2, late interaction", "a search with colbert-ir/colbertv2.0"),
        FirstStageAlias(
            "tas-b",
            "TAS-B, a dense bi-encoder",
            "a search with sebastian-hofstaetter/distilbert-dot-tas_b-b256-msmarco",
        ),
        FirstStageAlias("contriever", "Contriever, a dense bi-encoder", "a search with facebook/contriever-msmarco"),
        FirstStageAlias(
            "rankgpt", "a teacher: RankGPT-3.5 over BM25's top 20", "an import of RankGPT's own training data"
        ),
        FirstStageAlias("rankzephyr", "a teacher: RankZephyr over ColBERTv2's top 100", "Rank-DistiLLM"),
        FirstStageAlias("rankzephyr-bm25", "a teacher: RankZephyr over BM25's top 100", "Rank-DistiLLM"),
    )
}
_PUBLISHED = {  # published runs
    ("bm25", _TRAIN): "`cerank data fetch bm25-train-run`",
    ("colbertv2", _TRAIN): "`cerank data fetch colbertv2-run` (251,469,500 rows)",
    ("bm25", "dl19"): "`cerank data fetch rank-distillm-bm25-dl19` for that of Rank-DistiLLM",
    ("bm25", "dl20"): "`cerank data fetch rank-distillm-bm25-dl20` for that of Rank-DistiLLM",
    ("colbertv2", "dl19"): "`cerank data fetch rank-distillm-colbert-dl19`, Rank-DistiLLM's",
    ("colbertv2", "dl20"): "`cerank data fetch rank-distillm-colbert-dl20`, Rank-DistiLLM's",
    ("rankgpt", _TRAIN): (
        "`cerank data import rankgpt marco-train-100k.jsonl marco-train-100k-gpt3.5.json --into FOLDER` makes it as "
        "FOLDER/runs/rankgpt.run; `cerank data fetch rankgpt-100k` says where the two files are"
    ),
    ("rankzephyr", _TRAIN): "`cerank data fetch rank-distillm-rankzephyr-run`",
    ("rankzephyr-bm25", _TRAIN): "`cerank data fetch rank-distillm-rankzephyr-bm25-run`",
}

IMPORTED = "imported"  # folder of the cache where datasets are placed that an import makes and recipes name
IMPORTED_DATASETS = {  # name -> how to make it, with {} for its folder
    "twolar": "`cerank data fetch twolar` downloads it; then: cerank data import twolar FILE --into {}",
}


def id_of(name: str) -> str:
    """Return the ir_datasets id that a short name stands for; any other name is returned as it is."""
    return ALIASES[name].id if name in ALIASES else name


def imported_folder(name: str, cache: Path) -> Path:
    """Return the folder where a dataset is expected that recipes name and an import makes, such as twolar.

    Raises:
        MissingError: it is not there; the hint says how to make it.
    """
    folder = cache / IMPORTED / name
    if not folder.is_dir():
        hint = IMPORTED_DATASETS[name].format(folder)
        raise MissingError(f"the dataset {name} was not imported yet", hint=hint, code="folder-missing")
    return folder


def queries_are_documents(id_: str) -> bool:
    """Return whether an ir_datasets id is ArguAna or Quora, whose queries are documents of the collection themselves.

    BEIR and mteb leave the document with the query's own id out of the results of these.
    """
    return id_.startswith(("beir/arguana", "beir/quora", "nano-beir/arguana", "nano-beir/quora"))


def missing_run(dataset: str, place: str, name: str) -> MissingError | None:
    """Return the error for a known first stage or teacher that has no run yet; None for an unknown name.

    Args:
        dataset: whose run it is; its name, a part may follow.
        place: the folder for its runs; "" where it takes none, as a local folder has its own.
        name: name of the first stage or of the teacher.
    """
    first_stage = FIRST_STAGES.get(name)
    if first_stage is None or not place:
        return None
    dataset_name = dataset.partition("[")[0]
    short = _BY_ID[dataset_name].name if dataset_name in _BY_ID else dataset_name
    file = Path(place) / f"{name}.run"
    hint = f"place a TREC run at {file} (or {file.name}.gz): {_PUBLISHED.get((name, short), first_stage.source)}"
    return MissingError(f"no run of {name} for dataset {dataset} is here", hint=hint)


def declared_measures(name: str, largest_grade: int) -> tuple[str, ...]:
    """Return the measures of a dataset for a recipe that says "auto".

    Args:
        name: short, an ir_datasets id, or any other; a part such as `[:60%]` may follow.
        largest_grade: of its qrels; it decides for datasets that are not known: with grades up to 3 or more, as TREC
            gives them, a document counts as relevant from 2, else from 1.
    """
    dataset_name = name.partition("[")[0]
    alias = ALIASES.get(dataset_name) or _BY_ID.get(dataset_name)
    if alias is not None:
        return alias.measures
    return DL if largest_grade >= 3 else DEV


def run_folders(name: str, cache: Path) -> tuple[Path, ...]:
    """Return the folders that may hold runs of a catalog dataset: that of its short name, then that of its id."""
    short = _BY_ID[name].name if name in _BY_ID else name
    both = dict.fromkeys((short, id_of(name)))
    return tuple(cache / RUNS / Path(*name_or_id.split("/")) for name_or_id in both)


def placed_runs(name: str, cache: Path) -> Mapping[str, Path]:
    """Return first stage -> file for the runs that the user placed for a catalog dataset."""
    files: dict[str, Path] = {}
    for folder in run_folders(name, cache):
        for ending in (".run", ".run.gz"):
            for path in sorted(folder.glob(f"*{ending}")):
                files.setdefault(path.name.removesuffix(ending), path)
    return files
