"""The console: a page for people, served by the API. It uses the public API alone."""
