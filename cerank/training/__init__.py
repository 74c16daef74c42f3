"""The training loop, its losses, its sampler (step -> groups, a pure function) and its checkpoints."""
