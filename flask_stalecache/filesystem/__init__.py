"""Access to the operating system: safe files and directories, locks, sockets, shared memory and the identity of a process."""
