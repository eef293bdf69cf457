"""Upscales raw frames with the engines' networks."""
