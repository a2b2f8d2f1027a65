"""Corpora, rows, facts, captions, rendering and augmentation."""
