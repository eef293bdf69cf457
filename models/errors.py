"""Errors of weights.

    WeightsError            base; also a folder or a server that cannot be used
    ├── WeightsMissing      there is no source to make them from
    └── WeightsCorrupt      a file's content is not the expected one

`str(error)` is a sentence for the operator that says what to do next.
"""


class WeightsError(Exception):
    """The weights of an engine cannot be obtained."""


class WeightsMissing(WeightsError):
    """There are neither converted weights nor a source for them."""


class WeightsCorrupt(WeightsError):
    """A file's content is not what it should be."""
