"""Units of size, in bytes."""

GIB = 1024**3
MIB = 1024**2
