"""The choice among made-up ways to run a network, on the CPU."""

import logging

import pytest
import torch

from worker.inference.cuda.choice import MODULES, Candidate, choose, find_fault, test_picture

CPU = torch.device("cpu")
SHAPE = (2, 3, 24, 40)
# What 16 bits cost, or more.
ROUNDING = 1e-4


def enlarge(x):
    return x.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)


def modules(x):
    return enlarge(x) + ROUNDING


class Run:
    def __init__(self, shape, change=None, error=None):
        self.input = torch.zeros(shape)
        self.output = torch.zeros(shape[0], 3, 4 * shape[2], 4 * shape[3])
        self._change, self._error = change, error

    def run(self):
        if self._error is not None:
            raise self._error
        self.output.copy_(enlarge(self.input) - ROUNDING)
        if self._change is not None:
            self._change(self.output)


def candidate(name, **options):
    return Candidate(name=name, make=lambda shape: Run(shape, **options))


def choose_with(candidates, seconds, exact=enlarge, modules=modules):
    """`seconds`: what the modules take, then each right candidate."""
    left = list(seconds)
    return choose(
        candidates,
        modules=modules,
        exact=exact,
        shape=SHAPE,
        device=CPU,
        seconds_of=lambda run: left.pop(0),
    )


def one_row(output):
    output[:, :, -1] += 0.3


def one_pixel(output):
    output[1, 2, 50, 70] += 0.1


def next_image(output):
    output.copy_(output.flip(0))


def nothing_is_a_number(output):
    output[0, 0, 0, 0] = torch.nan


def grain(output):
    output += 0.01 * torch.randn(output.shape, generator=torch.Generator().manual_seed(0))


def test_the_fastest_right_one_is_taken():
    found = choose_with([candidate("a"), candidate("b"), candidate("c")], [4.0, 3.0, 1.0, 2.0])
    assert found.name == "b" and found.run is not None and found.dropped == {}
    assert found.seconds == {MODULES: 4.0, "a": 3.0, "b": 1.0, "c": 2.0}


def test_where_the_modules_are_fastest_nothing_is_taken():
    found = choose_with([candidate("a")], [1.0, 1.5])
    assert found.name == MODULES and found.run is None


@pytest.mark.parametrize("change", [one_row, one_pixel, next_image, nothing_is_a_number, grain])
def test_a_wrong_one_is_dropped_however_fast(change, caplog):
    with caplog.at_level(logging.WARNING, logger="worker.inference.cuda.choice"):
        found = choose_with([candidate("wrong", change=change), candidate("right")], [4.0, 2.0])
    assert found.name == "right" and set(found.dropped) == {"wrong"}
    assert "wrong" in caplog.text


def test_one_that_is_as_near_the_modules_but_further_from_32_bits_is_dropped():
    def further(output):
        output -= 0.0015

    found = choose_with([candidate("further", change=further)], [4.0])
    assert "32 bits" in found.dropped["further"]
    assert choose_with([candidate("further", change=further)], [4.0, 1.0], exact=None).name == "further"


def test_one_of_another_size_is_dropped():
    assert "gives" in (find_fault(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 8)) or "")


@pytest.mark.parametrize("error", [RuntimeError("no kernel"), ValueError("shape"), KeyError("x")])
def test_one_that_fails_is_dropped_with_what_it_said(error):
    found = choose_with([candidate("failing", error=error), candidate("right")], [4.0, 2.0])
    assert found.name == "right"
    assert str(error) in found.dropped["failing"] and type(error).__name__ in found.dropped["failing"]


def test_one_that_cannot_be_made_is_dropped():
    def make(shape):
        raise ImportError("libcuda is missing")

    found = choose_with([Candidate(name="unmade", make=make)], [4.0])
    assert found.run is None and "libcuda" in found.dropped["unmade"]


def test_one_that_lacks_memory_is_dropped_for_that():
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    found = choose_with([candidate("large", error=error), candidate("right")], [4.0, 2.0])
    assert found.name == "right" and found.dropped == {"large": "too little memory"}


def test_a_lack_of_memory_for_the_modules_comes_out():
    def starved(x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        choose_with([candidate("a")], [], modules=starved)


def test_without_memory_for_32_bits_the_modules_are_the_measure():
    def starved(x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    found = choose_with([candidate("right"), candidate("wrong", change=grain)], [4.0, 2.0], exact=starved)
    assert found.name == "right" and set(found.dropped) == {"wrong"}


def test_another_fault_of_the_32_bits_comes_out():
    def broken(x):
        raise RuntimeError("illegal memory access")

    with pytest.raises(RuntimeError, match="illegal"):
        choose_with([candidate("right")], [4.0, 2.0], exact=broken)


def test_the_picture_has_content_everywhere_and_differs_between_images():
    picture = test_picture(SHAPE, CPU)
    assert picture.shape == SHAPE and picture.min() >= 0 and picture.max() <= 1
    assert picture.std() > 0.1 and not torch.equal(picture[0], picture[1])
    for edge in (picture[:, :, 0], picture[:, :, -1], picture[..., 0], picture[..., -1]):
        assert edge.std() > 0.05
    assert torch.equal(picture, test_picture(SHAPE, CPU))


# pytest would take the function for a test.
test_picture.__test__ = False
