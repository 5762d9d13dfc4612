"""Reads and calls the developer's code: names of functions, configured callables, decorators and resources of other packages."""
