"""One cache over many hosts: each has its files, and a server has what they share."""
