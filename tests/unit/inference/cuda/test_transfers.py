"""The order of a download's steps, with streams of our own on the CPU: a copy runs when its stream is waited for."""

from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import pytest
import torch

from worker.inference import transfers as plain
from worker.inference.cuda import transfers
from worker.inference.cuda.transfers import StreamTransfers


class Stream:
    def __init__(self, device=None):
        self.work = []

    def wait_stream(self, other):
        self.work.append(other.run)

    def run(self):
        while self.work:
            self.work.pop(0)()


class Event:
    def record(self, stream):
        self._stream = stream

    def synchronize(self):
        self._stream.run()


class Deferred(torch.Tensor):
    """Host memory, to which a copy is only noted on the current stream."""

    def copy_(self, source, non_blocking=False):
        assert non_blocking
        Cuda.current.work.append(
            lambda: self.as_subclass(torch.Tensor).copy_(source.as_subclass(torch.Tensor))
        )
        return self


class Planes(torch.Tensor):
    """What the device computes, kept from reuse by `record_stream`."""

    def record_stream(self, stream):
        Cuda.kept.append(stream)


class Cuda:
    Event, Stream = Event, Stream
    computing = current = Stream()
    kept: ClassVar[list[Stream]] = []

    @classmethod
    def current_stream(cls, device):
        return cls.computing

    @classmethod
    @contextmanager
    def stream(cls, stream):
        before, cls.current = cls.current, stream
        yield
        cls.current = before


@pytest.fixture
def pinned(monkeypatch):
    """The sizes of pinned blocks. There is no pinned memory here, and no stream."""
    sizes, empty = [], torch.empty

    def without_pins(shape, *, pin_memory, **options):
        assert pin_memory
        sizes.append(tuple(shape))
        return empty(shape, **options).as_subclass(Deferred)

    monkeypatch.setattr(transfers.torch, "empty", without_pins)
    for name in ("Event", "Stream", "current_stream", "stream"):
        monkeypatch.setattr(transfers.torch.cuda, name, getattr(Cuda, name))
    return sizes


def test_a_download_waits_for_the_computing_before_it_and_leaves_the_next_batch_alone(pinned):
    on_device = StreamTransfers(torch.device("cpu"))
    batches, waits = [torch.zeros(2, 6, dtype=torch.uint8).as_subclass(Planes) for _ in range(2)], []
    for value, planes in enumerate(batches, start=1):
        Cuda.computing.work.append(lambda planes=planes, value=value: planes.fill_(value))
        waits.append(on_device.start_download(planes))
    assert pinned == [(2, 6), (2, 6)] and Cuda.kept == [on_device._downloads] * 2
    assert not batches[0].any()  # nothing has waited yet
    first, second = (wait() for wait in waits)
    assert [int(frame[0]) for frame in (*first, *second)] == [1, 1, 2, 2]
    assert all(isinstance(frame, np.ndarray) and frame.shape == (6,) for frame in first)


def test_uploads_go_through_pinned_memory_of_their_own(pinned):
    assert plain.torch is transfers.torch
    frame = np.arange(6, dtype=np.uint8)
    found = StreamTransfers(torch.device("cpu")).upload([frame, frame])
    frame[:] = 0  # the caller may reuse it
    assert pinned == [(2, 6)] and found.tolist() == [[0, 1, 2, 3, 4, 5]] * 2
