"""The only home of torch and transformers: models, losses, the training loop, scoring."""
