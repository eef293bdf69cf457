"""Functions for administrators."""
