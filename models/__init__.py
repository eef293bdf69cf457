"""The engines: the catalogue, their weights and their networks."""
