"""Expressions of ffmpeg's filters."""

from collections.abc import Sequence


def expression_tree(leaves: Sequence[tuple[int, str]], *, number: str = "N") -> str:
    """The expression of the last leaf whose number is at most `number`; a balanced tree of comparisons."""
    if len(leaves) == 1:
        return leaves[0][1]
    middle = len(leaves) // 2
    below, above = (expression_tree(half, number=number) for half in (leaves[:middle], leaves[middle:]))
    return f"if(lt({number}\\,{leaves[middle][0]})\\,{below}\\,{above})"
