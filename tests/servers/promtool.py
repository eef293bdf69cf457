"""Prometheus' own promtool, which evaluates rules and queries over given series."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

RULES = Path(__file__).parents[2] / "docs" / "observability" / "prometheus-alerts.yml"


def series_of(text: str, *, but: Sequence[str] = ()) -> list[dict[str, str]]:
    """Every sample of a scrape, standing still for ten minutes."""
    samples = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return [
        {"series": name, "values": f"{value}x10"}
        for name, value in samples
        if not name.startswith(tuple(but))
    ]


def run_tests(directory: Path, tests: Sequence[Mapping[str, Any]]) -> None:
    """Runs promtool's unit tests over the alert rules. Skips without promtool."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: scripts/setup --test installs it on Debian")
    file = directory / "tests.yml"
    # JSON is YAML.
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    result = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
