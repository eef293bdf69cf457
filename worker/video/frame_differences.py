"""How much each frame differs from the one before, measured by ffmpeg beside the frames themselves.

A second stream of one pixel for each frame but the first: the largest of the mean differences of luma in blocks,
because what moves may be small. Its 16 bits are read from the checksum of their two bytes.
"""

# Blocks in a row and in a column. Powers of three are reduced to one by maxima of three times three.
BLOCKS = 27
# Of 16-bit luma, a code of 8 bits.
CODE = 257.0
# Differences are no luma of a limited range, whose black ffmpeg would take off where it makes gray of it.
AS_THEY_ARE = "in_range=pc:out_range=pc"


def with_differences(chain: str, *, stream: str) -> list[str]:
    """ffmpeg's options for two streams: what `chain` makes of `stream` (as `0:1`), and how its frames differ."""
    size, maxima = BLOCKS, []
    while size > 1:
        size //= 3
        # The middle of each three pixels has the largest of all nine around it.
        maxima += ["dilation", f"scale={size}:{size}:flags=neighbor:{AS_THEY_ARE}"]
    blocks = [
        "extractplanes=y",
        "tblend=all_mode=difference",
        f"scale={BLOCKS}:{BLOCKS}:flags=area:{AS_THEY_ARE}",
        "format=gray16le",
        *maxima,
        "format=gray16le",
    ]
    graph = f"[{stream}]{chain},split[frames][copies];[copies]{','.join(blocks)}[differences]"
    return ["-filter_complex", graph, "-map", "[frames]", "-map", "[differences]"]


def read_difference(checksum: int) -> float:
    """The difference, in codes of 8 bits, from the Adler-32 (from 0) of its two bytes: of the bytes a and b it holds
    2 a + b and a + b."""
    doubled, total = checksum >> 16, checksum & 0xFFFF
    low = doubled - total
    return ((total - low) * 256 + low) / CODE
