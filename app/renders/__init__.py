"""Renders: the jobs of users, from the request to the result."""
