"""The networks: what engines there are, their weights and their architectures."""
