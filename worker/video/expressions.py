"""Expressions of ffmpeg's filters."""

from collections.abc import Sequence


def expression_tree(leaves: Sequence[tuple[int, str]]) -> str:
    """The expression of the last leaf whose number is at most N; a balanced tree of comparisons."""
    if len(leaves) == 1:
        return leaves[0][1]
    middle = len(leaves) // 2
    return f"if(lt(N\\,{leaves[middle][0]})\\,{expression_tree(leaves[:middle])}\\,{expression_tree(leaves[middle:])})"
