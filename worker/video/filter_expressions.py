"""Expressions of ffmpeg's filters and options."""

from collections.abc import Sequence
from fractions import Fraction

from app.platform.media.clock import MICROSECONDS


def expression_tree(leaves: Sequence[tuple[int, str]], *, number: str = "N") -> str:
    """The expression of the last leaf whose number is at most `number`; a balanced tree of comparisons."""
    if len(leaves) == 1:
        return leaves[0][1]
    middle = len(leaves) // 2
    below, above = (expression_tree(half, number=number) for half in (leaves[:middle], leaves[middle:]))
    return f"if(lt({number}\\,{leaves[middle][0]})\\,{below}\\,{above})"


def seconds_option(seconds: Fraction) -> str:
    """Seconds for ffmpeg's options, rounded to microseconds."""
    microseconds = round(seconds * MICROSECONDS)
    whole, rest = divmod(abs(microseconds), MICROSECONDS)
    return f"{'-' if microseconds < 0 else ''}{whole}.{rest:06d}"
