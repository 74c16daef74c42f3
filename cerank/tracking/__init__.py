"""Send what happens in a run to an experiment tracker: Weights & Biases, trackio, MLflow or TensorBoard."""
