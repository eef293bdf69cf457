"""Previews: one frame of a file before and after."""
