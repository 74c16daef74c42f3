"""Mine candidates for negatives by a model, and show the negatives of a run or file."""
