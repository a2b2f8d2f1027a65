"""Training of PianoBind: corpora, captions, augmentation, rendering, the loop. Run from the root, never installed."""
