"""When the GPU's runtime chooses, and what it then runs; on the CPU, with made-up ways to run a network."""

import torch

from models.architectures import NearestNeighbour
from worker.inference.cuda.candidates import GRAPHED
from worker.inference.cuda.choice import Choice
from worker.inference.cuda.runtime import CALLS_BEFORE_CHOOSING, CHANCES, CudaRuntime

CPU = torch.device("cpu")


class Run:
    """Gives one more than the network, so that a test sees which one computed."""

    def __init__(self, shape):
        self.input = torch.zeros(shape)
        self.output = torch.zeros(shape[0], 3, 4 * shape[2], 4 * shape[3])

    def run(self):
        self.output.copy_(NearestNeighbour()(self.input) + 1)


class Trial:
    def __init__(self, passed=frozenset({GRAPHED})):
        self.known = passed
        self.dropped = {"all": "it crashed"}

    def passed(self):
        return self.known


class Chooser:
    def __init__(self, makes=Run):
        self.asked = []
        self._makes = makes

    def __call__(self, candidates, shape):
        self.asked.append((tuple(one.name for one in candidates), shape))
        return Choice(name="made up", run=self._makes(shape), seconds={}, dropped={})


def runtime_with(trial=None, chooser=None):
    trial, chooser = trial or Trial(), chooser or Chooser()
    return CudaRuntime(
        NearestNeighbour(),
        device=CPU,
        trial=lambda: trial,
        choose_among=chooser,
    )


def images(count, height=5, width=7):
    return torch.rand(count, 3, height, width)


def is_chosen(runtime, x):
    found, plain = runtime(x), NearestNeighbour()(x)
    assert torch.equal(found, plain) or torch.equal(found, plain + 1)
    return not torch.equal(found, plain)


def used(runtime, x, calls=CALLS_BEFORE_CHOOSING):
    for _ in range(calls):
        assert not is_chosen(runtime, x)
    return runtime


def test_a_few_calls_are_not_worth_a_choice_and_start_no_trial():
    def fail():
        raise AssertionError("a trial was asked for")

    runtime = CudaRuntime(NearestNeighbour(), device=CPU, trial=fail, choose_among=Chooser())
    used(runtime, images(2))


def test_then_what_was_chosen_runs():
    chooser = Chooser()
    runtime = used(runtime_with(chooser=chooser), images(2))
    assert is_chosen(runtime, images(2)) and is_chosen(runtime, images(2))
    assert chooser.asked == [((GRAPHED,), (2, 3, 5, 7))]


def test_as_long_as_the_trial_runs_the_modules_compute():
    trial, chooser = Trial(passed=None), Chooser()
    runtime = used(runtime_with(trial, chooser), images(2), calls=CALLS_BEFORE_CHOOSING + 3)
    assert chooser.asked == []
    trial.known = frozenset({GRAPHED})
    assert is_chosen(runtime, images(2))


def test_what_failed_its_trial_is_never_run_here():
    chooser = Chooser()
    runtime = used(
        runtime_with(Trial(passed=frozenset()), chooser), images(2), calls=CALLS_BEFORE_CHOOSING + 3
    )
    assert chooser.asked == []
    assert runtime.choice is not None and runtime.choice.dropped == {"all": "it crashed"}


def test_fewer_images_run_by_the_same():
    chooser = Chooser()
    runtime = used(runtime_with(chooser=chooser), images(3))
    assert is_chosen(runtime, images(3)) and is_chosen(runtime, images(1))
    assert len(chooser.asked) == 1


def test_more_images_are_chosen_for_anew():
    chooser = Chooser()
    runtime = used(runtime_with(chooser=chooser), images(1))
    assert is_chosen(runtime, images(1)) and is_chosen(runtime, images(4))
    assert [shape[0] for _, shape in chooser.asked] == [1, 4]


def test_other_sizes_go_to_the_modules():
    chooser = Chooser()
    runtime = used(runtime_with(chooser=chooser), images(2))
    assert is_chosen(runtime, images(2))
    assert not is_chosen(runtime, images(2, width=8))
    assert is_chosen(runtime, images(2))
    assert len(chooser.asked) == 1


def test_when_memory_runs_out_it_is_given_back_and_the_next_choice_is_for_the_smaller_shape():
    chooser = Chooser()
    runtime = used(runtime_with(chooser=chooser), images(4))
    assert is_chosen(runtime, images(4))
    runtime.release()
    assert runtime.choice is None
    assert is_chosen(runtime, images(2))
    assert [shape[0] for _, shape in chooser.asked] == [4, 2]


def test_after_some_chances_the_modules_are_left():
    chooser = Chooser()
    runtime = used(runtime_with(chooser=chooser), images(4))
    for count in range(CHANCES):
        assert is_chosen(runtime, images(4 - count))
        runtime.release()
    assert not is_chosen(runtime, images(1))
    assert len(chooser.asked) == CHANCES


def test_a_lack_of_memory_comes_out():
    class Starved(Run):
        def run(self):
            raise torch.OutOfMemoryError("CUDA out of memory")

    runtime = used(runtime_with(chooser=Chooser(Starved)), images(2))
    try:
        runtime(images(2))
    except torch.OutOfMemoryError:
        runtime.release()
    else:
        raise AssertionError("nothing came out")
