"""The demo's gunicorn configuration. It is a file because gunicorn ignores unknown names in a file, but not unknown options."""

from typing import Any

workers = 2
worker_class = "gthread"
# Enough for all of the demo's first visitors, because the kernel may give all of them to one worker.
threads = 16
# A visitor of the demo reuses its connection, even after the longest wait.
keepalive = 75
graceful_timeout = 2
# The socket is in the home directory, where two demos would share it.
control_socket_disable = True

READY = "Worker is ready"


def post_worker_init(worker: Any) -> None:
    """Report to the demo, which waits for all workers before it starts."""
    worker.log.info(READY)
