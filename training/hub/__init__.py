"""The folder of a publication, and its upload."""
