"""Rules and values. Everything below this package is pure: no clock, no I/O, no threads and no Flask."""
