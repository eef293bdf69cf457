"""Triton's kernels on a GPU where there is one, else in Triton's interpreter, on tensors of the CPU."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    # Read when a kernel is decorated, that is before worker.inference.cuda.kernels is imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture
def device(monkeypatch):
    """Where kernels can be launched; skips where they cannot."""
    pytest.importorskip("triton", reason="Triton is not installed")
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    from triton.runtime import interpreter

    from worker.inference.cuda import kernels

    if not isinstance(kernels.convolve, interpreter.InterpretedFunction):
        pytest.skip("the kernels were loaded before Triton's interpreter was asked for")
    patch_tensor = interpreter._patch_lang_tensor

    def patch_for_numpy(tensor, scope):
        # It keeps scalars as arrays of one value, which numpy from 2.4 on does not make integers of.
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patch_for_numpy)
    return torch.device("cpu")
