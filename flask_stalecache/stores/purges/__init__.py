"""The records of purges in a cache directory, those that wait for their lock, and those that were merged."""
