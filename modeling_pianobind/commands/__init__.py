"""Commands of `pianobind` that are more than a call of the library."""
