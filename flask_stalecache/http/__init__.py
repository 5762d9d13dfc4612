"""What RFC 9111, 5861 and 9213 say about fields of a response, as pure functions."""
