"""cerank: a terminal benchmark for fine-tuning cross-encoder re-rankers, one stage or several.

The public interface is the command line and the files it reads and writes (`cerank guide decisions`, section 23). The
modules are not: any release may change them. Only the version can be relied upon from Python.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
