"""Cached fetch functions."""
