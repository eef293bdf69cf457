"""Frames in, frames four times as large out."""
