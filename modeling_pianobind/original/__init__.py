"""The published PianoBind: its settings."""
