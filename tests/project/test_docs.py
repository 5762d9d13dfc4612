"""The documentation names what exists, the code of the README runs, and the command lines for servers start them."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import pytest
import requests
from flask_caching import Cache
from werkzeug.test import Client

import flask_stalecache
from flask_stalecache.config.settings import KEYS
from flask_stalecache.frontends.flask_app.flask_gateway import _NEEDS_THE_APP
from support.endurance import IS_SOAK
from support.servers import PATIENCE, STOP_PATIENCE, environment, wait_for

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOCUMENTED_KEY = re.compile(r"^\.\. confval:: STALECACHE_(\w+)$", re.MULTILINE)
LOCAL_LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)[^)]*\)")


def python_blocks() -> list[tuple[str, int]]:
    """Return the Python code of the README, each block with the number of lines before it."""
    text = README.read_text(encoding="utf-8")
    return [(block[1], text.count("\n", 0, block.start(1))) for block in PYTHON_BLOCK.finditer(text)]


def test_readme_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # Flask puts the instance folder of an unknown module here
    namespace: dict[str, Any] = {"__name__": "readme"}
    blocks = python_blocks()
    assert len(blocks) == 3
    for source, lines_before in blocks:
        exec(compile("\n" * lines_before + source, str(README), "exec"), namespace)
    assert (tmp_path / "instance" / "stalecache" / "names").is_dir(), "it purges"
    assert [Client(namespace["application"]).get("/news/1").headers["X-Cache-Status"] for _ in range(2)] == ["MISS", "HIT"]


@pytest.mark.parametrize("name", sorted(flask_stalecache.__all__))
def test_public_name_is_in_the_api_page(name: str) -> None:
    page = (ROOT / "docs" / "api.rst").read_text(encoding="utf-8")
    assert re.search(rf"^\.\. auto\w+:: {name}$", page, re.MULTILINE)


def test_configuration_page_lists_every_key_once() -> None:
    page = (ROOT / "docs" / "configuration.rst").read_text(encoding="utf-8")
    assert sorted(DOCUMENTED_KEY.findall(page)) == sorted(KEYS)


def test_local_links_of_the_readme_exist() -> None:
    links = LOCAL_LINK.findall(README.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_description_on_pypi_is_a_part_of_the_readme() -> None:
    """It has no relative links or pictures, which would be broken there."""
    description = (ROOT / "docs" / "pypi.md").read_text(encoding="utf-8")
    assert LOCAL_LINK.findall(description) == []
    readme = README.read_text(encoding="utf-8").splitlines()
    assert [line for line in description.splitlines() if line not in readme] == []


def pages() -> list[Path]:
    return [README, *(ROOT / "docs").rglob("*.rst")]


def test_pages_name_only_known_keys() -> None:
    named = {
        (page.name, key)
        for page in pages()
        for key in re.findall(r"STALECACHE_([A-Z][A-Z_]*[A-Z])", page.read_text(encoding="utf-8"))
    }
    assert {(page, key) for page, key in named if key not in KEYS} == set()


@pytest.mark.parametrize("method", ["cached", "memoize", "session", "adapter", "purge", "refresh", "warm"])
def test_every_parameter_is_explained(method: str) -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages() if page.name != "api.rst")
    parameters = [
        parameter.name
        for parameter in inspect.signature(getattr(flask_stalecache.StaleCache, method)).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD and parameter.name not in ("self", "url")
    ]
    assert len(parameters) >= 3
    assert [name for name in parameters if not re.search(rf"``{name}(=[^`]*)?``|[(]{name}=", text)] == []


# -- the pages for those who come from elsewhere -----------------------------------------------------------------------

NGINX_DIRECTIVES = (
    "proxy_cache", "proxy_cache_background_update", "proxy_cache_bypass", "proxy_cache_convert_head",
    "proxy_cache_key", "proxy_cache_lock", "proxy_cache_lock_age", "proxy_cache_lock_timeout",
    "proxy_cache_max_range_offset", "proxy_cache_methods", "proxy_cache_min_uses", "proxy_cache_path",
    "proxy_cache_purge", "proxy_cache_revalidate", "proxy_cache_use_stale", "proxy_cache_valid",
    "proxy_no_cache", "proxy_ignore_headers", "levels", "use_temp_path",
    "keys_zone", "inactive", "max_size", "min_free",
    "manager_files", "manager_sleep", "manager_threshold", "loader_files",
    "loader_sleep", "loader_threshold", "purger", "purger_files",
    "purger_sleep", "purger_threshold",
)  # fmt: skip


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.rst").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NGINX_DIRECTIVES)
def test_nginx_directive_has_a_counterpart(name: str) -> None:
    assert re.search(rf"``{name}[` ]", page("from-nginx"))


def test_nginx_status_words_are_explained() -> None:
    words = re.findall(r"^    \* - ([A-Z]+)$", page("from-nginx"), re.MULTILINE)
    assert sorted(words) == sorted(flask_stalecache.CacheStatus)


@pytest.mark.parametrize("method", [Cache.cached, Cache.memoize, Cache.init_app], ids=lambda method: method.__name__)
def test_flask_caching_parameters_and_keys_have_a_counterpart(method: Any) -> None:
    text = page("from-flask-caching")
    known = re.findall(r'"(CACHE_\w+)"', inspect.getsource(method)) or [*inspect.signature(method).parameters][1:]
    assert len(known) > 5
    assert [name for name in known if not re.search(rf"``{name}(=[^`]*)?``", text)] == []


MOVED_APP = """
from flask import Flask, render_template
from flask_caching import Cache

app = Flask(__name__)
app.config.from_mapping({"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": "stored", "CACHE_DEFAULT_TIMEOUT": 60})
cache = Cache(app)
calls = []


@app.get("/")
@cache.cached(timeout=60, query_string=True)
def page():
    return render_template("page.html", rate=rate("EUR", None))


@app.get("/mine")
@cache.cached(timeout=60, unless=lambda: False)
def mine():
    return ""


@cache.memoize(300, args_to_ignore=["log"])
def rate(base, log):
    calls.append(base)
    return len(calls)


@app.post("/changed")
def changed():
    cache.delete_memoized(rate, "EUR", None)
    cache.delete_memoized(rate)
    cache.clear()
    return ""
"""

#: Code that has nothing to do with the cache.
OTHER = b"class Cache: pass\r\nCache()\r\nname = '\xe4'\r\n"


def test_the_script_moves_an_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = next(block for block in NAMED_FILE.finditer(page("from-flask-caching")) if block[1] == "move.py")
    (tmp_path / "move.py").write_text(dedent(script[2]))
    templates = tmp_path / "moved" / "templates"
    templates.mkdir(parents=True)
    source, other = tmp_path / "moved" / "moved_shop.py", tmp_path / "moved" / "other.py"
    source.write_text(MOVED_APP)
    other.write_bytes(OTHER)
    (templates / "page.html").write_text('{% cache 60*5, "part" %}{{ rate }}{% endcache %}')
    (templates / "more.html").write_text('{% cache None, "part" %}{% endcache %}\n{% cache 60, name %}{% endcache %}\n')
    command = [sys.executable, "move.py", "moved"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr, other.read_bytes()) == (0, "", OTHER)
    told = [line.partition(" ")[0].removeprefix("moved/") for line in done.stdout.splitlines()]
    assert told == ["moved_shop.py:6:", "moved_shop.py:18:", "templates/more.html:1:", "templates/more.html:2:"]
    # Change by hand the line that the script has left: the cache has no types.
    source.write_text(
        source.read_text().replace('"CACHE_TYPE": "FileSystemCache", ', "").replace("stored", str(tmp_path / "stored"))
    )
    monkeypatch.syspath_prepend(source.parent)
    try:
        client = Client(importlib.import_module("moved_shop").app)
        visits = [client.get(path) for path in ("/", "/", "/?page=2")]
        assert [(visit.headers["X-Cache-Status"], visit.text) for visit in visits] == [("MISS", "1"), ("HIT", "1"), ("MISS", "1")]
        assert client.post("/changed").status_code == 200
        assert client.get("/").text == "2"
    finally:
        sys.modules.pop("moved_shop", None)


@pytest.mark.parametrize("name", sorted(_NEEDS_THE_APP))
def test_what_the_gateway_refuses_is_in_its_page(name: str) -> None:
    assert f"``{name}``" in page("gateway").partition("what to write instead\n    * -")[2].partition(".. doctest::")[0]


# -- the pages of the servers ------------------------------------------------------------------------------------------

SHELL_BLOCK = re.compile(r"^( *)\.\. code-block:: shell\n\n\1    ((?:.+\\\n)*.+)\n", re.MULTILINE)
NAMED_FILE = re.compile(r"^\.\. code-block:: python\n\n    # (\S+\.py)\n((?:    .*\n|\n)+)", re.MULTILINE)
FIRST_CODE = re.compile(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", re.MULTILINE)
SHOP = """
import time

from flask import Flask
from flask_stalecache import StaleCache

cache = StaleCache()


def create_app():
    app = Flask(__name__)
    app.config.from_prefixed_env()
    cache.init_app(app)

    @app.get("/")
    @cache.cached(max_age=0, stale_while_revalidate=600)
    def page():
        return str(time.time_ns())

    return app
"""


def server_page(name: str) -> str:
    return (ROOT / "docs" / "servers" / f"{name}.rst").read_text(encoding="utf-8")


def commands() -> dict[str, tuple[str, str]]:
    """Return each command line on the pages of the servers, with the name of its page, by a short name."""
    names = sorted(page.stem for page in (ROOT / "docs" / "servers").glob("*.rst"))
    blocks = [(name, block[2]) for name in names for block in SHELL_BLOCK.finditer(server_page(name))]
    return {f"{block[0]}{number}": block for number, block in enumerate(blocks, 1)}


class Started(NamedTuple):
    """A server that a page's command line has started."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def get(self) -> tuple[str | None, str]:
        """Return the cache status and the body of the page."""
        with requests.Session() as session:
            session.trust_env = False
            response = session.get(self.url, timeout=PATIENCE)
        return response.headers.get("X-Cache-Status"), response.text

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return bool(self.get())
        except requests.ConnectionError:
            return False


@contextmanager
def start(page: str, command: str, folder: Path) -> Iterator[Started]:
    """Run a command line as it is written, but for the port, in a folder with the app that it names.

    The server has one worker, since each imports everything; under ``make soak``, it has as many as are written.
    """
    folder.mkdir()
    if not IS_SOAK:
        command = re.sub(r"--(workers|processes) \d+", r"--\1 1", command)
    (folder / "shop.py").write_text(SHOP)
    for name, code in NAMED_FILE.findall(server_page(page)):
        if name in command:
            (folder / name).write_text(dedent(code))
    with socket.socket() as reserved:
        # Bound but not listening: no other process takes the port, and the server can. granian needs the second option.
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            reserved.setsockopt(socket.SOL_SOCKET, option, 1)
        reserved.bind(("127.0.0.1", 0))
        port = str(reserved.getsockname()[1])
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        log = folder / "log"
        with (
            log.open("wb") as output,
            subprocess.Popen(
                ["/bin/sh", "-c", f"exec env {command}".replace("8000", port)],
                cwd=folder,
                env=environment(folder, {"HOME": folder, "PATH": path}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as process,
        ):
            try:
                yield Started(process, f"http://127.0.0.1:{port}/", log)
            finally:
                # The server leads a process group. How it ends is not tested here: uWSGI gives its workers a minute.
                for number in (signal.SIGTERM, signal.SIGKILL):
                    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                        os.killpg(process.pid, number)
                        process.wait(STOP_PATIENCE)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Started]]:
    """Start all of them, side by side."""
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        servers = {name: stack.enter_context(start(page, command, folder / name)) for name, (page, command) in commands().items()}
        yield servers
        # All end side by side, too.
        for server in servers.values():
            with suppress(ProcessLookupError):
                os.killpg(server.process.pid, signal.SIGTERM)


@pytest.mark.server
@pytest.mark.soak
@pytest.mark.parametrize("name", commands())
def test_documented_command_line_serves_and_refreshes(started: dict[str, Started], name: str) -> None:
    server, (_, command) = started[name], commands()[name]
    wait_for(server.answers, what=command)
    if "STALECACHE_ENABLED=false" in command:
        (status, first), (_, second) = server.get(), server.get()
        assert status is None
        assert first != second
        return
    status, first = server.get()
    assert status in ("STALE", "UPDATING")
    wait_for(lambda: server.get()[1] != first, what="the new page")


def test_every_server_has_a_command_line() -> None:
    assert {page for page, _ in commands().values()} == {"gunicorn", "uwsgi", "waitress", "granian", "werkzeug"}
    for kind in ("sync", "gthread", "gevent", "--preload"):
        assert kind in server_page("gunicorn")


def test_documented_cgi_script_runs(tmp_path: Path) -> None:
    match = FIRST_CODE.search(server_page("cgi"))
    assert match is not None
    (tmp_path / "shop.py").write_text(SHOP)
    request = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/", "QUERY_STRING": "", "SERVER_PROTOCOL": "HTTP/1.1"}
    request |= {"SERVER_NAME": "shop.example", "SERVER_PORT": "80", "GATEWAY_INTERFACE": "CGI/1.1"}
    answers = [
        subprocess.run(
            [sys.executable, "-c", dedent(match[1])],
            cwd=tmp_path,
            env=environment(tmp_path, request),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        for _ in range(3)
    ]
    statuses = [re.search(r"^X-Cache-Status: (\w+)", answer.stdout, re.MULTILINE) for answer in answers]
    assert [status and status[1] for status in statuses] == ["MISS", "STALE", "STALE"]
    bodies = [answer.stdout.split()[-1] for answer in answers]
    assert bodies[0] == bodies[1] != bodies[2], "renewed when the response was closed"
    assert ["in line" in answer.stderr for answer in answers] == [True] * 3


# -- the places named in CONTRIBUTING -----------------------------------------------------------------------------------

PLACE = re.compile(r"``(flask_stalecache/[\w/]+)\.py::([\w.]+)``")
CONTRIBUTING = (ROOT / "CONTRIBUTING.rst").read_text(encoding="utf-8")


def test_every_ordinary_change_has_one_place() -> None:
    rows = CONTRIBUTING.partition("How do I …")[2].partition("\nTests\n")[0].split("\n    * - ")[2:]
    assert len(rows) == 16
    assert [row for row in rows if len(PLACE.findall(row)) != 1] == []


@pytest.mark.parametrize(("module", "name"), PLACE.findall(CONTRIBUTING))
def test_place_of_a_change_exists(module: str, name: str) -> None:
    found: Any = importlib.import_module(module.replace("/", "."))
    for part in name.split("."):
        found = getattr(found, part)
