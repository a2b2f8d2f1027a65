"""The retrieval metric: `piano_retrieval.py` for `evaluate`, `ranking.py` for everybody."""
