"""Benchmark protocols, metrics and results of PianoBind; used from the repository root, never installed."""
