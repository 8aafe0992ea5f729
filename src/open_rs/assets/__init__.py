"""The embedded tiny reasoning model, and the scripts that made it."""
