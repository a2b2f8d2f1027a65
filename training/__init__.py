"""Training of PianoBind: corpora, captions, augmentation, rendering and the loop. Run from the root, never installed."""
