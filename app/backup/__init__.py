"""Backups: rows and, on request, the videos, in one file that restores into any database and storage."""
