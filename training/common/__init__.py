"""What data and loop both use."""
