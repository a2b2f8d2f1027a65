"""A training run: objective, losses, batches, processes."""
