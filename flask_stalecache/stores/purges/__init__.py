"""What was purged: the records of a cache directory, those that wait for their lock, and those that were merged."""
