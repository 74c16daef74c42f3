"""File primitives: atomic writes, journals, locks, checksummed folders, strict readers; nothing here knows of runs."""
