"""cerank: a terminal benchmark for fine-tuning cross-encoder re-rankers, one stage or several.

As a library, `cerank.load` scores with any re-ranker, `cerank.compare` compares rankings, and `cerank.train` makes a
run (`cerank guide library`).
"""

__version__ = "0.1.0"
_LIBRARY = (  # of cerank.api
    "ComparisonResult",
    "ComparisonRow",
    "LabRun",
    "LoadedReranker",
    "RankedPassage",
    "compare",
    "load",
    "train",
)
__all__ = [  # noqa: PLE0604 - the names of the library, and the version
    "__version__",
    *_LIBRARY,
]


def __getattr__(name: str) -> object:
    """Return a name of the library, which is imported when it is first used."""
    if name not in _LIBRARY:
        raise AttributeError(f"module 'cerank' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module("cerank.api"), name)


def __dir__() -> list[str]:
    return [*globals(), *_LIBRARY]
