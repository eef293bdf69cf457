"""`regen serve`: the API in this process, the embedded broker and worker as its children."""
