"""Shared by command line, page and Ray job: a lazily loaded checkpoint, a numpy text tower, error lines."""
