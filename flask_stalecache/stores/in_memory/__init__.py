"""The memory store: entries and purges of one process."""
