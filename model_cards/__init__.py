"""Cards of checkpoints and datasets: Jinja templates, filled from measured results."""
