"""When the fused network computes, and when torch's modules do; on the CPU, with a made-up fused network."""

import logging

import pytest
import torch

from models.architectures import NearestNeighbour
from worker.inference.cuda import runtime as fused_runtime
from worker.inference.cuda.runtime import FusedRuntime, find_fault, trial_picture

CPU = torch.device("cpu")
# What 16 bits cost, or more: a test sees by it which one computed.
ROUNDING = 1e-4


class Fused:
    def __init__(self, change=None):
        self._change = change

    def __call__(self, x):
        output = NearestNeighbour()(x) + ROUNDING
        if self._change is not None:
            self._change(output)
        return output


@pytest.fixture
def made(monkeypatch):
    """The shapes that fused networks were made for. `made.change` is what they do to their results."""

    class Made(list):
        change = None

    shapes = Made()

    def fuse(network, modules, *, images, height, width):
        shapes.append((images, height, width))
        return Fused(shapes.change)

    monkeypatch.setattr(fused_runtime, "FusedNetwork", fuse)
    return shapes


@pytest.fixture
def runtime(made):
    return FusedRuntime(NearestNeighbour(), device=CPU)


def images(count, height=24, width=40):
    return torch.rand(count, 3, height, width)


def is_fused(runtime, x):
    found, plain = runtime(x), NearestNeighbour()(x)
    assert torch.equal(found, plain) or torch.equal(found, plain + ROUNDING)
    return not torch.equal(found, plain)


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


def no_kernel(output):
    raise RuntimeError("no kernel image")


def no_memory(output):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_one_that_agrees_computes(runtime, made):
    assert is_fused(runtime, images(2)) and is_fused(runtime, images(2))
    assert made == [(2, 24, 40)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (one_row, "differs from the modules by up to 0.3"),
        (one_pixel, "differs from the modules by up to 0.1"),
        (next_image, "differs from the modules"),
        (nothing_is_a_number, "nan"),
        (grain, "dB only"),
        (no_kernel, "no kernel image"),
        (no_memory, "too little memory"),
    ],
)
def test_one_that_is_wrong_or_fails_is_dropped_for_good_with_the_reason(
    runtime, made, caplog, change, reason
):
    made.change = change
    with caplog.at_level(logging.WARNING, logger="worker.inference.cuda.runtime"):
        assert not is_fused(runtime, images(2))
    assert reason in caplog.text
    made.change = None
    assert not is_fused(runtime, images(2)) and not is_fused(runtime, images(3))
    assert len(made) == 1


def test_one_of_another_size_is_wrong():
    assert "gives" in (find_fault(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 8)) or "")


def test_fewer_images_run_by_the_same_and_for_more_it_is_made_anew(runtime, made):
    assert is_fused(runtime, images(2)) and is_fused(runtime, images(1)) and is_fused(runtime, images(4))
    assert made == [(2, 24, 40), (4, 24, 40)]


def test_other_sizes_go_to_the_modules(runtime, made):
    assert is_fused(runtime, images(2))
    assert not is_fused(runtime, images(2, width=8))
    assert is_fused(runtime, images(2))
    assert len(made) == 1


def test_after_memory_ran_out_the_modules_are_left(runtime, made):
    assert is_fused(runtime, images(4))
    runtime.release()
    assert not is_fused(runtime, images(2))


def test_a_lack_of_memory_while_it_computes_comes_out(runtime, made):
    assert is_fused(runtime, images(2))
    runtime._fused._change = no_memory
    with pytest.raises(torch.OutOfMemoryError):
        runtime(images(2))


def test_the_picture_has_content_everywhere_and_differs_between_images():
    shape = (2, 3, 24, 40)
    picture = trial_picture(shape, CPU)
    assert picture.shape == shape and picture.min() >= 0 and picture.max() <= 1
    assert picture.std() > 0.1 and not torch.equal(picture[0], picture[1])
    for edge in (picture[:, :, 0], picture[:, :, -1], picture[..., 0], picture[..., -1]):
        assert edge.std() > 0.05
    assert torch.equal(picture, trial_picture(shape, CPU))
