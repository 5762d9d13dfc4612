"""Cached views."""
