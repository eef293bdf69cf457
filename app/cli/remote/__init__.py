"""Commands against any server: a thin layer over regen-client."""
