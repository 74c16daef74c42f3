"""cerank: a terminal benchmark for fine-tuning cross-encoder re-rankers, one stage or several."""

__version__ = "0.1.0"
