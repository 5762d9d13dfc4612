"""One cache over many hosts: each host has its own files, and a server holds the shared data."""
