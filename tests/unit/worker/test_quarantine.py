"""A worker in quarantine tests itself, and comes back or ends."""

import math

import pytest

from app.platform.errors import TransientError, Unavailable
from app.platform.retry_policies import RetryPolicy, RetryRow
from app.work.worker_standing import Standing
from worker import quarantine
from worker.quarantine import MOST_TRIES, Quarantine


class Row:
    """The worker's row, as its ledger shows it."""

    def __init__(self) -> None:
        self.standing_now = Standing(is_quarantined=True)
        self.is_away = False

    def standing(self) -> Standing:
        if self.is_away:
            raise Unavailable("The database cannot be reached.")
        return self.standing_now

    def recover(self) -> None:
        self.standing_now = Standing()


class Case:
    def __init__(self) -> None:
        self.row, self.is_drained, self.is_broken = Row(), False, True
        self.tests, self.ends, self.listens = 0, 0, [True]
        self.quarantine = Quarantine(
            self.row,  # type: ignore[arg-type]
            drained=lambda: self.is_drained,
            test=self._test,
            listen=self.listens.append,
            end=self._end,
        )

    def _test(self) -> None:
        self.tests += 1
        if self.is_broken:
            raise TransientError("It is broken.")

    def _end(self) -> None:
        self.ends += 1


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> Case:
    steps = RetryPolicy(steps_seconds=(0.0,) * MOST_TRIES)
    monkeypatch.setattr(quarantine, "QUARANTINE", steps)
    return Case()


def test_it_is_not_woken_until_its_test_passes(case: Case) -> None:
    case.quarantine.begin("ffmpeg")
    assert not case.quarantine.may_claim
    case.quarantine.tick()
    assert (case.tests, case.listens) == (1, [True, False])
    case.row.is_away = True
    case.quarantine.tick()
    assert case.tests == 1
    case.row.is_away, case.is_broken = False, False
    case.quarantine.tick()
    assert case.quarantine.may_claim and case.listens == [True, False, True]
    assert not case.row.standing_now.is_quarantined


def test_an_operators_word_ends_it_without_a_test(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case.quarantine, "_tries", RetryRow(RetryPolicy(steps_seconds=(math.inf,))))
    case.quarantine.begin("ffmpeg")
    case.quarantine.tick()
    assert not case.quarantine.may_claim
    case.row.recover()
    case.quarantine.tick()
    assert case.quarantine.may_claim and case.tests == 0


@pytest.mark.parametrize("passes", [False, True])
def test_it_ends_after_some_tries_also_when_it_passes_its_test_each_time(case: Case, passes: bool) -> None:
    case.is_broken = not passes
    for tries in range(1, MOST_TRIES + 1):
        if passes or tries == 1:
            case.row.standing_now = Standing(is_quarantined=True)
            case.quarantine.begin("ffmpeg")
        assert case.ends == 0
        case.quarantine.tick()
    assert (case.ends, case.tests) == (1, MOST_TRIES)


def test_a_drained_worker_is_not_woken(case: Case) -> None:
    case.is_drained = True
    assert not case.quarantine.may_claim
    case.quarantine.tick()
    case.is_drained = False
    case.quarantine.tick()
    assert case.listens == [True, False, True]
