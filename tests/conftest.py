"""Servers that tests of several folders start."""

pytest_plugins: list[str] = []
