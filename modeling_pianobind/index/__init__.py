"""Embeddings of a folder: building, storage, search, alignment."""
