"""Purges, refreshes and warms many entries at once."""
