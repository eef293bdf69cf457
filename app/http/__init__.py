"""What surrounds every request and belongs to no feature."""
