"""The work on a render between its upload and its finished file."""
