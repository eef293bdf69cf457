"""What can be wrong with weights.

    WeightsError            base; also a folder or a server that cannot be used
    ├── WeightsMissing      nothing to read them from
    └── WeightsCorrupt      there are bytes, but not the expected ones

`str(error)` is a sentence for the operator that says what to do next.
"""


class WeightsError(Exception):
    """The weights of an engine cannot be had."""


class WeightsMissing(WeightsError):
    """Neither converted weights nor a source for them were found."""


class WeightsCorrupt(WeightsError):
    """A file was found whose content is not what it should be."""
