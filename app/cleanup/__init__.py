"""The clean-up: removes what is no longer needed."""
