"""Refreshes and warming requests as data, for other processes."""
