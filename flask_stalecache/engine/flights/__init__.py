"""Single flight: one call of an origin at a time for each key, and what the requests that wait for it are given."""
