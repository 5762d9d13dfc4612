"""The cache in front of a WSGI app."""
