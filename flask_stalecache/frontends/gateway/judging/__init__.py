"""Judges the app's responses: whether they are stored, for which visitors, and as which entries."""
