"""Servers that tests of several folders start."""

from hypothesis import settings

# How long an example takes says something about the machine, not about the code.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

pytest_plugins: list[str] = [
    "tests.servers.broker",
    "tests.servers.postgres",
    "tests.servers.s3",
]
