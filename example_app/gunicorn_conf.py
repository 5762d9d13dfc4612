"""How the demo runs the site; a file rather than options, since gunicorn passes over names that its version lacks."""

from typing import Any

workers = 2
worker_class = "gthread"
# Room for all of the demo's first visitors in one worker, since the kernel may give them all to one.
threads = 16
# A visitor of the demo comes back on the same connection after the longest wait of the story.
keepalive = 75
graceful_timeout = 2
# It would lie in the home directory, where two demos would share it.
control_socket_disable = True

READY = "Worker is ready"


def post_worker_init(worker: Any) -> None:
    """Tell the demo, which waits for all workers before it begins."""
    worker.log.info(READY)
