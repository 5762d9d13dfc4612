"""Watches what a view and the hooks before it read of the request and its session."""
