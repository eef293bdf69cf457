"""Moments of a file, counted from its video's first frame."""

from fractions import Fraction

from app.files.tables import File

# The largest moment that requests may name, in seconds: longer than any accepted file.
LONGEST_SECONDS = 1e9
# A float computed by a client as frame / rate is nearer to the frame's exact time than to any other such fraction.
FINEST_SECONDS = 1_000_000


def exact_moment(at_seconds: float) -> Fraction:
    """The exact fraction for a float: 1/30 for 0.03333333333333333."""
    return Fraction(str(at_seconds)).limit_denominator(FINEST_SECONDS)


def moment_faults(file: File, at_seconds: Fraction) -> list[str]:
    """A sentence if the moment is after the video's end."""
    if at_seconds - file.video.duration_seconds <= Fraction(1, FINEST_SECONDS):
        return []
    return [
        f"`at_seconds` is after the video's end: it lasts {float(file.video.duration_seconds):g} seconds."
    ]
