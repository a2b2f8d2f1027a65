"""Settings of the published PianoBind."""
