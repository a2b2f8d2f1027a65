"""What serves a user: a lazily loaded checkpoint, the text tower without torch, error lines."""
