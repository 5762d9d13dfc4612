"""What a Flask app adds to several front ends: its endpoints, its sessions, and the gateway that stands before it."""
