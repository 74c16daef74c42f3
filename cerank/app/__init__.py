"""The front door: plan, start, list, watch, stop, resume and compare runs; command line and dashboard call it alone.

Invariant: importing it loads neither torch nor scipy nor ir_datasets; what needs them imports them when asked.
"""

from cerank.app.lab import Lab

__all__ = ["Lab"]
