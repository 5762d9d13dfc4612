"""Hands refreshes over to other processes: to the worker of this package, or to a task queue."""
