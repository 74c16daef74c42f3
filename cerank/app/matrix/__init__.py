"""Drafts and matrices of runs: forms, planning, and runs in the queue."""
