"""Train low-rank adapters: which matrices they update, over which base, and what of them is saved."""
