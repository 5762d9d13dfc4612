"""The decisions: what to serve, what to store, and what to report about it."""
