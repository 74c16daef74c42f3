"""How a step changes the weights: the optimizer, a learning rate by layer, and the average of the weights."""
