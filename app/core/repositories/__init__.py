"""Every query of the server. Functions take a session and leave transactions to their callers."""
