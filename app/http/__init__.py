"""Code that all requests share and no feature owns."""
