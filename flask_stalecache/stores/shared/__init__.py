"""One cache over many hosts: each has its own files, and a server holds what they share."""
