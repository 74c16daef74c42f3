"""The folder of a run: its layout, records, checksums, state, and the queue of a lab."""
