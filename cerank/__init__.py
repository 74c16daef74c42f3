"""cerank: a terminal benchmark for fine-tuning cross-encoder re-rankers, one stage or several.

As a library, `cerank.load` scores with any re-ranker and `cerank.compare` compares rankings (`cerank guide library`).
"""

__version__ = "0.1.0"
_LIBRARY = ("ComparisonResult", "ComparisonRow", "RankedPassage", "LoadedReranker", "compare", "load")  # in cerank.api
__all__ = ["ComparisonResult", "ComparisonRow", "LoadedReranker", "RankedPassage", "__version__", "compare", "load"]


def __getattr__(name: str) -> object:
    """Return a name of the library, which is imported when it is first used."""
    if name not in _LIBRARY:
        raise AttributeError(f"module 'cerank' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module("cerank.api"), name)


def __dir__() -> list[str]:
    return [*globals(), *_LIBRARY]
