"""What both command line and dashboard do: plan, start, list, watch, stop, resume, compare and report runs.

Invariant: importing it loads neither torch nor scipy nor ir_datasets; what needs them imports them when asked.
"""

from cerank.app.lab import Lab

__all__ = ["Lab"]
