"""Train a model whose weights are divided among the processes of a run, each of which holds a share of every one."""
