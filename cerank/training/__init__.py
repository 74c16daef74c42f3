"""Train a stage: the loop, its batches, losses, sampler of groups (a pure function of the step) and checkpoints."""
