"""What users used, and what they may use."""
