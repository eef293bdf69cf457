"""What becomes of a process that tries: it answers, crashes, hangs, or is called off."""

import json
import os
import sys
import time

import pytest

from models.architectures import RRDBNet, SRVGGNetCompact
from worker.inference.cuda.trial import Trial, random_network, shape_as_json

SECONDS = 30


def trial_that(code, **options):
    return Trial([sys.executable, "-I", "-S", "-c", code], **options)


def outcome(trial):
    ends_at = time.monotonic() + SECONDS
    while (passed := trial.passed()) is None:
        assert time.monotonic() < ends_at, "the trial never ended"
        time.sleep(0.01)
    return passed, trial.dropped


def test_its_answer_is_the_last_line_it_writes():
    answer = json.dumps({"passed": ["a"], "dropped": {"b": "too slow"}})
    found = outcome(trial_that(f"print('a warning'); print({answer!r})"))
    assert found == (frozenset({"a"}), {"b": "too slow"})


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise SystemExit('no driver')", "no driver"),
        ("import os; os.abort()", "-6"),
        ("pass", "0"),
        ("print('[]')", "[]"),
        ("print('{}')", "{}"),
    ],
)
def test_without_an_answer_nothing_passes(code, reason):
    passed, dropped = outcome(trial_that(code))
    assert passed == frozenset() and reason in dropped["all"]


def test_one_that_hangs_is_ended():
    trial = trial_that("import time; time.sleep(600)", limit_seconds=0.3)
    assert trial.passed() is None
    passed, dropped = outcome(trial)
    assert passed == frozenset() and "longer than 0.3 s" in dropped["all"]
    assert trial._process.returncode is not None


def test_it_can_be_called_off():
    trial = trial_that("import time; time.sleep(600)")
    pid = trial._process.pid
    trial.stop()
    assert outcome(trial)[0] == frozenset()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    trial.stop()


@pytest.mark.parametrize("network", [SRVGGNetCompact(convolutions=3), RRDBNet(blocks=1, growth=16)])
def test_the_child_tries_a_network_of_the_same_shape(network):
    other = random_network(**json.loads(shape_as_json(network)))
    assert type(other) is type(network)
    assert other.dimensions == network.dimensions
