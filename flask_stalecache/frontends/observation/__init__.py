"""Observes what an app reads of a request and its session, so that it is known on what a response depends."""
