"""The page on several hosts offers parts to copy: the rights at the server, and files for Docker Compose and Kubernetes."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from pathlib import Path, PurePosixPath
from pkgutil import iter_modules
from typing import Any, NamedTuple

import pytest
import requests
import yaml

from example_app import create_app
from flask_stalecache.config.settings import KEYS, PREFIX
from flask_stalecache.stores import shared
from support.servers import PATIENCE
from support.shared_hosts import Server, documented_rights

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "example_app" / "deploy"
UID = 10001

#: What the client sends itself, besides scripts.
SENT = {"evalsha", "eval", "scan", "xread", "set", "pttl", "del"}
#: What its libraries send when they connect.
CONNECTING = {"hello", "select", "client|setinfo"}


def test_the_rights_are_those_that_the_scripts_need() -> None:
    modules = [import_module(f"{shared.__name__}.{found.name}") for found in iter_modules(shared.__path__)]
    scripts = [value for module in modules for value in vars(module).values() if isinstance(value, str)]
    needed = {word.lower() for script in scripts for word in re.findall(r"redis\.p?call\(\s*'(\w+)'", script)}
    assert len(needed) > 10
    assert {right.removeprefix("+") for right in documented_rights()} == needed | SENT | CONNECTING


# -- the files -------------------------------------------------------------------------------------------------------


class Container(NamedTuple):
    """A container with the example app.

    :ivar volumes: how many bytes it may write, by path.
    """

    command: list[str]
    environment: dict[str, str]
    volumes: dict[str, int]
    uid: int
    root_is_read_only: bool


def compose() -> dict[str, Any]:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    values = {"GIT_COMMIT": "1234567", "NEWS_SECRET_KEY": "for tests"}
    return dict(yaml.safe_load(re.sub(r"\$\{(\w+):[-?][^}]*\}", lambda name: values[name[1]], text)))


def in_compose() -> Container:
    web = compose()["services"]["web"]
    volumes = {}
    for line in web["tmpfs"]:
        place, _, options = line.partition(":")
        volumes[place] = size_of(dict(option.split("=") for option in options.split(","))["size"])
    environment = {name: str(value) for name, value in web["environment"].items()}
    return Container(web["command"], environment, volumes, int(web["user"].partition(":")[0]), web["read_only"])


def in_kubernetes() -> Container:
    deployment, _ = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))
    pod = deployment["spec"]["template"]["spec"]
    (web,) = pod["containers"]
    secrets = {"store": "redis://valkey/0", "secret-key": "for tests"}
    environment = {
        each["name"]: each["value"] if "value" in each else secrets[each["valueFrom"]["secretKeyRef"]["key"]] for each in web["env"]
    }
    sizes = {each["name"]: size_of(each["emptyDir"]["sizeLimit"]) for each in pod["volumes"]}
    volumes = {each["mountPath"]: sizes[each["name"]] for each in web["volumeMounts"]}
    context = pod["securityContext"]
    assert context["runAsNonRoot"]
    return Container(web["args"], environment, volumes, context["runAsUser"], web["securityContext"]["readOnlyRootFilesystem"])


def size_of(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([mM])i?b?", text, re.IGNORECASE).groups()  # type: ignore[union-attr]
    return int(number) * 1024 ** {"m": 2}[unit.lower()]


CONTAINERS = {"compose": in_compose, "kubernetes": in_kubernetes}


@pytest.fixture(params=CONTAINERS)
def container(request: pytest.FixtureRequest) -> Container:
    made = CONTAINERS[request.param]()
    assert isinstance(made, Container)
    return made


def test_the_directory_is_in_a_volume_that_is_large_enough(container: Container) -> None:
    place = PurePosixPath(container.environment["NEWS_STALECACHE_DIR"])
    # The volume itself belongs to root, and others may write to it.
    volume = str(place.parent)
    assert volume in container.volumes
    assert container.volumes[volume] > KEYS["MAX_SIZE"].default + 2 * 1024**2
    assert container.root_is_read_only
    assert container.uid == UID


def test_the_settings_exist_and_are_accepted(container: Container, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = [name.removeprefix("NEWS_") for name in container.environment]
    assert [name for name in settings if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in KEYS] == []
    for name, value in {**container.environment, "NEWS_STALECACHE_DIR": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    app = create_app()
    assert app.config["STALECACHE_SHARED_NAME"] == "news"
    assert app.config["SECRET_KEY"] == "for tests"


def test_the_image_runs_the_same_command(container: Container) -> None:
    _, _, command = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").partition("\nCMD ")
    assert json.loads(command.replace("\\\n", "")) == container.command


def test_the_server_of_compose_evicts_pages_only(tmp_path: Path) -> None:
    program, *options = compose()["services"]["valkey"]["command"]
    assert program == "valkey-server"
    server = Server(tmp_path, options=options)
    try:
        assert server.client().config_get("maxmemory*")["maxmemory-policy"] == "volatile-lru"
    finally:
        server.kill()


# -- a container, as far as this machine can play one ----------------------------------------------------------------

#: A root file system that can't be written, a volume that belongs to root, and a user of its own without any rights. This Python is
#: mounted where that user may run it.
BOX = """
mount -t tmpfs -o mode=0777,size=256m none "$1/volume" && mount --bind "$2" "$1/python" && mount -o remount,ro,bind / &&
shift 2 && exec "$@"
"""
USER = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--inh-caps=-all", "--no-new-privs"]
PYTHON = Path(os.path.realpath(sys.executable)).relative_to(sys.base_prefix)


def boxed(place: Path, *words: str) -> list[str]:
    """Return the command that runs Python with some words in a box."""
    return ["unshare", "--mount", "sh", "-c", BOX, "sh", str(place), sys.base_prefix, *USER, str(place / "python" / PYTHON), *words]


def environment_of(place: Path, **more: str) -> dict[str, str]:
    packages = os.pathsep.join((str(ROOT), sysconfig.get_path("purelib")))
    return {"PYTHONPATH": packages, "LD_LIBRARY_PATH": str(place / "python" / "lib"), "PATH": os.environ["PATH"], **more}


@contextmanager
def folder() -> Iterator[Path]:
    """Make a folder that every user may enter."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        for inner in ("volume", "python"):
            (Path(name) / inner).mkdir()
        yield Path(name)


def can_box() -> bool:
    """Whether this machine can run Python in a box."""
    with folder() as place, suppress(OSError):
        command = boxed(place, "-c", "import flask, msgspec, gunicorn, redis")
        return subprocess.run(command, env=environment_of(place), capture_output=True, check=False).returncode == 0
    return False


@contextmanager
def running(command: Sequence[str], environment: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """Run the command in a box; yield its URL, and its cache directory as others see it."""
    with folder() as place:
        directory = place / "volume" / "news"
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            swapped = [f"--bind=fd://{listening.fileno()}" if word.startswith("--bind") else word for word in command[1:]]
            process = subprocess.Popen(
                boxed(place, "-m", command[0], "--workers=1", *swapped),
                cwd=ROOT,
                env=environment_of(place, **environment, NEWS_STALECACHE_DIR=str(directory)),
                pass_fds=(listening.fileno(),),
            )
        try:
            yield f"http://127.0.0.1:{port}/", Path(f"/proc/{process.pid}/root{directory}")
        finally:
            process.terminate()
            process.wait(PATIENCE)


def visit(url: str) -> tuple[int, str]:
    answer = requests.get(f"{url}articles/the-ten-second-box", headers={"Host": "news.example"}, timeout=4 * PATIENCE)
    return answer.status_code, answer.headers["X-Cache-Status"]


@pytest.mark.server
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make the root file system read-only")
def test_two_containers_share_pages() -> None:
    if not can_box():
        pytest.skip("this machine has no unshare and setpriv, or does not let them work")
    container = in_compose()
    settings = {name: value for name, value in container.environment.items() if name != "NEWS_STALECACHE_DIR"}
    with ExitStack() as stack:
        place = stack.enter_context(folder())
        server = Server(place, options=["--unixsocketperm", "777"])
        stack.callback(server.kill)
        settings["NEWS_STALECACHE_STORE"] = server.url
        one, directory = stack.enter_context(running(container.command, settings))
        other, _ = stack.enter_context(running(container.command, settings))
        visit(one)
        assert visit(one) == (200, "HIT")
        # Its first request for the page: it takes over the page that the first container stored.
        assert visit(other) == (200, "HIT")
        status = directory.stat()
        assert (status.st_uid, status.st_mode & 0o777) == (UID, 0o700)
