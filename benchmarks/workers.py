"""An app under gunicorn with several workers, for ``collapse.py`` and ``hang.py``."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Time limit in seconds for every step of the benchmark.
PATIENCE = 60.0
#: Number of concurrent requests, repeated until each worker has answered one.
_ASKED = 8


@contextmanager
def gunicorn(
    folder: Path,
    source: str,
    workers: int,
    worker_of: Callable[[int], Hashable],
    env: Mapping[str, str] | None = None,
    **settings: object,
) -> Iterator[int]:
    """Run an app under gunicorn until the end, wait for all its workers first, and yield the port on 127.0.0.1.

    :param folder: its directory.
    :param source: source of the module that contains ``app``.
    :param worker_of: sends a request to a port, and returns the worker that responded.
    :param env: its environment variables.
    :param settings: gunicorn's own, such as ``threads=8``.
    """
    # A file, because gunicorn ignores unknown names in a file, but not unknown options; older versions lack the last name.
    config = {"workers": workers, "loglevel": "warning", "control_socket_disable": True, **settings}
    (folder / "app.py").write_text(source)
    (folder / "gunicorn_conf.py").write_text("".join(f"{name} = {value!r}\n" for name, value in config.items()))
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        port: int = listening.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "gunicorn_conf.py", "-b", f"fd://{listening.fileno()}", "app:app"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), **(env or {})},
            pass_fds=(listening.fileno(),),
        )
        try:
            _wait_for_workers(process, workers, lambda: worker_of(port))
            yield port
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _wait_for_workers(process: subprocess.Popen[bytes], workers: int, ask: Callable[[], Hashable]) -> None:
    deadline, seen = time.monotonic() + PATIENCE, set[Hashable]()
    with ThreadPoolExecutor(_ASKED) as pool:
        while len(seen) < workers:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("gunicorn did not start")
            seen.update(pool.map(lambda _: ask(), range(_ASKED)))
