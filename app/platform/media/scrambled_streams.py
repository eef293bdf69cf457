"""Scrambled packets of transport streams (ISO/IEC 13818-1, 2.4.3.3), as receivers without a smart card record them."""

from pathlib import Path

HEADER_BYTES = 4
PACKET_BYTES = (188, 192, 204)
SYNC_BYTE = b"\x47"
# Consecutive packets that must begin with it for a packet size to be right.
SYNCED_PACKETS = 8
SAMPLES = 32
SAMPLE_BYTES = 64 * 1024
# More than a receiver misses until it has the key.
LEAST_SCRAMBLED_PERCENT = 10
_PID_BITS, _SCRAMBLED_BITS = 0x1FFF, 0xC0


def is_scrambled(path: Path, *, pid: int) -> bool:
    """Whether a large part of the packets of one stream is scrambled, by samples from the whole file."""
    scrambled = seen = 0
    size = path.stat().st_size
    with path.open("rb") as file:
        for number in range(SAMPLES):
            file.seek(max(0, size - SAMPLE_BYTES) * number // SAMPLES)
            for header in _headers(file.read(SAMPLE_BYTES)):
                if int.from_bytes(header[1:3], "big") & _PID_BITS == pid:
                    seen += 1
                    scrambled += header[3] & _SCRAMBLED_BITS > 0
    return 100 * scrambled > LEAST_SCRAMBLED_PERCENT * seen


def _headers(data: bytes) -> list[bytes]:
    """The first four bytes of each packet."""
    for size in PACKET_BYTES:
        for start in range(size):
            if data[start::size][:SYNCED_PACKETS] == SYNC_BYTE * SYNCED_PACKETS:
                return [data[at : at + HEADER_BYTES] for at in range(start, len(data) - HEADER_BYTES, size)]
    return []
