"""Files: uploaded videos."""
