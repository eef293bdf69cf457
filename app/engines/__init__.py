"""The engines for renders."""
