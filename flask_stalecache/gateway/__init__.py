"""A shared HTTP cache in front of a whole WSGI app: it obeys what the app's responses say, and knows no Flask."""
