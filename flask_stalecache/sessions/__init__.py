"""A shared HTTP cache for ``requests``, by the third parties' own headers. It knows Flask only to find its app."""
