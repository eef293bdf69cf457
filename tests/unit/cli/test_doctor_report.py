"""Parts of `regen doctor` that need no other program."""

from functools import partial

import pytest
from rich.console import Console

from app.cli import doctor
from app.cli.doctor.findings import Finding, FindingState
from app.cli.doctor.services import check_database
from app.cli.doctor.setup import check_secret
from app.platform.settings import Settings

FINDINGS = [
    Finding.ok("encoder libx264", "encodes"),
    Finding.absent(
        "database", "none at sqlite:////srv/" + "long/" * 12 + "regen.db", fix="regen db upgrade " * 4
    ),
    Finding.missing("a [red]subject[/red]", "words " * 30, fix="more words " * 20),
]


@pytest.mark.parametrize("columns", [80, 40, 20])
def test_the_report_fits_the_terminal_and_nothing_is_cut_off(monkeypatch, capsys, columns):
    monkeypatch.setattr(doctor, "stdout", partial(Console, width=columns))
    doctor._show(FINDINGS)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    shown = "".join("".join(lines).split())
    for finding in FINDINGS:
        for text in (finding.state.value, finding.subject, finding.found, finding.fix):
            assert "".join(text.split()) in shown


def test_a_database_without_workers_is_told_so_and_not_written(regen, database, tmp_path):
    settings = Settings()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    [_database, workers] = check_database(settings)
    assert workers.state is FindingState.ABSENT and "none is alive" in workers.found
    assert "regen worker" in workers.fix
    missing = check_secret(settings)
    assert missing.state is FindingState.ABSENT and "regen keys create" in missing.fix
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_secret_that_others_may_read_is_told(tmp_path):
    settings = Settings(data_dir=tmp_path)
    (tmp_path / "secret").write_text("a secret of these tests, which is none")
    (tmp_path / "secret").chmod(0o644)
    assert check_secret(settings).fix == f"chmod 600 {tmp_path}/secret"
    (tmp_path / "secret").chmod(0o600)
    assert check_secret(settings).state is FindingState.OK
