"""Cards of checkpoints and data sets: Jinja templates, and what fills them from measured results."""
