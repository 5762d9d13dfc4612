"""Observes what an app reads of a request and its session, to find out what a response depends on."""
