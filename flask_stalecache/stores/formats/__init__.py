"""The formats of files: how entries and notes are written, and checked when they are read."""
