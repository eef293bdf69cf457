"""What happens to a render between its upload and its finished file."""
