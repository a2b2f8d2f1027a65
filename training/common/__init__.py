"""Shared by data and loop."""
