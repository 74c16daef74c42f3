"""The lab book: write entries, check what they keep, and export a study as one page."""
