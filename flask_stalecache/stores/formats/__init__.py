"""The formats of files: how entries and notes are written, and how what is read is checked."""
