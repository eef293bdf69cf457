"""Servers that tests of several folders start."""

pytest_plugins: list[str] = [
    "tests.servers.broker",
    "tests.servers.postgres",
    "tests.servers.s3",
]
