"""`regen serve`: the API in this process, the embedded broker and the worker as child processes."""
