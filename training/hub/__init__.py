"""What is published, and the upload."""
