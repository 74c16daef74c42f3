"""The only code that touches a run directory: files that survive a kill, journals, leases, names, runs."""
