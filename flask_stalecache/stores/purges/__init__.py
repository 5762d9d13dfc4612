"""The records of purges in a cache directory, the purges that wait for their lock, and the records that were merged."""
