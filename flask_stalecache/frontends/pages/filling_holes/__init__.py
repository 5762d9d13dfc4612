"""Fills the holes of stored pages for each visitor."""
