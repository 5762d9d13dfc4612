"""A Flask app behind several front ends: its endpoints, its sessions, and the gateway in front of it."""
