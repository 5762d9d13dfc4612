"""Cached sessions of requests."""
