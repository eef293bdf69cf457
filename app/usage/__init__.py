"""Users' usage and limits."""
