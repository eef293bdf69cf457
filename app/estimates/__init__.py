"""Estimates and forecasts: what a render costs and how long it takes."""
