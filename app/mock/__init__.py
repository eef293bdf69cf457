"""`regen mock`: the API from its own routes, in one process, with a stand-in for everything behind it."""
