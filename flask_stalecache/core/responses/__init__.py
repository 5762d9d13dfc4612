"""Sending responses: whole, in part, or as a confirmation, and with which fields."""
