"""The table of stamps in memory that all processes of a machine share, so that a hit needs no system call."""
