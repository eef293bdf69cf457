"""`regen mock`: the API from its own routes, in one process, with stand-ins for everything behind them."""
