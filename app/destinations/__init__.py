"""Destinations: finished results that are sent to an address of their user's."""
