"""Takes captions out of tiny pictures as libx264 writes them into FLV, whose tags hold a time and one picture each.

ffmpeg counts the triples of a picture in five bits, and so loses those of DVDs that send more with a group of pictures:
here their number follows from the size of the message, and they are passed on in as many messages as they need.
"""

from collections.abc import Iterator
from typing import BinaryIO

from worker.video.caption_messages import ATSC_CAPTIONS, H264_SEI, LENGTH_BYTES, TimedTriples, with_captions

# Of the file, with the size of no tag before; of a tag; of what precedes a picture in it; of the tag's size after it.
FILE_HEADER_BYTES, TAG_HEADER_BYTES, PICTURE_HEADER_BYTES, TAG_SIZE_BYTES = 13, 11, 5, 4
VIDEO, PICTURE = 9, 1
# Within a message: the count and reserved bits before the triples; marker and stop bits after them.
COUNT_BYTES, END_BYTES = 2, 2


def caption_tags(stream: BinaryIO) -> Iterator[tuple[bytes, TimedTriples]]:
    """The pieces of an FLV stream to pass on, and in each the time of its picture, in ticks of CLOCK, and its triples,
    which may be none.
    """
    yield stream.read(FILE_HEADER_BYTES), (0, b"")
    while len(header := stream.read(TAG_HEADER_BYTES)) == TAG_HEADER_BYTES:
        size = int.from_bytes(header[1:4])
        tag = stream.read(size + TAG_SIZE_BYTES)[:size]
        if len(tag) < size:
            return
        time, triples = int.from_bytes(header[7:8] + header[4:7]), b""
        if header[0] == VIDEO and tag[1] == PICTURE:
            picture, triples = _separated(tag[PICTURE_HEADER_BYTES:])
            tag = tag[:PICTURE_HEADER_BYTES] + with_captions(picture, triples, codec="h264")
        header = header[:1] + len(tag).to_bytes(3) + header[4:]
        end = (TAG_HEADER_BYTES + len(tag)).to_bytes(TAG_SIZE_BYTES)
        yield header + tag + end, (time, triples)


def _separated(picture: bytes) -> tuple[bytes, bytes]:
    """The picture without its message of captions, and their triples."""
    others, triples, at = b"", b"", 0
    while at < len(picture):
        end = at + LENGTH_BYTES + int.from_bytes(picture[at : at + LENGTH_BYTES])
        unit = picture[at + LENGTH_BYTES : end]
        if unit[0] == H264_SEI and ATSC_CAPTIONS in unit:
            message = unit.replace(b"\0\0\3", b"\0\0").partition(ATSC_CAPTIONS)[2]
            triples += message[COUNT_BYTES:-END_BYTES]
        else:
            others += picture[at:end]
        at = end
    return others, triples
