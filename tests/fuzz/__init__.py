"""Hostile inputs, made from a random generator: `python -m tests.fuzz.run --cases N` runs as many as asked for."""
