"""``flask stalecache worker``: a process beside the web server that runs the refreshes of all web processes of a host."""
