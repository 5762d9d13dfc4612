"""Finds out why a page is cached or not, in a sandbox."""
