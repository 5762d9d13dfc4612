"""Single flight: one call of an origin at a time for each key, whose result the waiting requests share."""
