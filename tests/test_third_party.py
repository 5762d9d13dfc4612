"""The slow third party, as a process that is talked to over a socket."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import pytest
import requests

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 30

pytestmark = pytest.mark.server


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the third party; yield its process and the URL that it printed."""
    command = [sys.executable, "-m", "example_app.third_party", "--port", "0", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.fixture(scope="module")
def running() -> Iterator[str]:
    with started("--sleep", "0") as (_, url):
        yield url


@pytest.fixture
def url(running: str) -> Iterator[str]:
    yield running
    post(f"{running}mode", "ok")
    post(f"{running}sleep", "0")


@pytest.fixture
def get() -> Iterator[Callable[..., requests.Response]]:
    with requests.Session() as session:
        session.trust_env = False

        def get(url: str, timeout: float = PATIENCE) -> requests.Response:
            return session.get(url, timeout=timeout)

        yield get


def post(url: str, text: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.post(url, data=text, timeout=PATIENCE)


def test_a_call_answers_a_number(url: str, get: Callable[..., requests.Response]) -> None:
    response = get(url)
    assert response.status_code == 200
    assert 0 <= int(response.text) <= 1000


@pytest.mark.parametrize(("mode", "status"), [("ok", 200), ("fail", 503)])
def test_a_mode_sets_the_status(url: str, get: Callable[..., requests.Response], mode: str, status: int) -> None:
    assert post(f"{url}mode", mode).text.strip() == mode
    assert get(url).status_code == status


def test_down_closes_the_connection(url: str, get: Callable[..., requests.Response]) -> None:
    post(f"{url}mode", "down")
    with pytest.raises(requests.ConnectionError):
        get(url)


def test_calls_that_hang_are_answered_once_the_mode_changes(url: str, get: Callable[..., requests.Response]) -> None:
    post(f"{url}mode", "hang")
    with pytest.raises(requests.ReadTimeout):
        get(url, 0.2)
    answers: SimpleQueue[int] = SimpleQueue()
    before = int(get(f"{url}calls").text)
    caller = threading.Thread(target=lambda: answers.put(get(url).status_code), daemon=True)
    caller.start()
    while int(get(f"{url}calls").text) == before:
        assert caller.is_alive()
    assert answers.empty()
    post(f"{url}mode", "fail")
    assert answers.get(timeout=PATIENCE) == 503
    caller.join(PATIENCE)


def test_every_call_counts_and_asking_for_the_count_does_not(url: str, get: Callable[..., requests.Response]) -> None:
    before = int(get(f"{url}calls").text)
    get(url)
    post(f"{url}mode", "fail")
    get(url)
    assert int(get(f"{url}calls").text) == before + 2


def test_the_sleep_can_be_changed(url: str, get: Callable[..., requests.Response]) -> None:
    assert post(f"{url}sleep", "20").status_code == 200
    with pytest.raises(requests.ReadTimeout):
        get(url, 0.3)


@pytest.mark.parametrize(
    ("path", "text", "status", "answer"),
    [
        ("mode", "up", 400, r"'up' is no mode; there are ok, fail, hang, down"),
        ("mode", "", 400, r"'' is no mode"),
        ("sleep", "-1", 400, r"'-1' is not a number of seconds"),
        ("sleep", "nan", 400, r"'nan' is not a number of seconds"),
        ("sleep", "inf", 400, r"'inf' is not a number of seconds"),
        ("sleep", "long", 400, r"'long'"),
        ("other", "ok", 404, r"There are"),
    ],
)
def test_bad_input_is_refused(url: str, path: str, text: str, status: int, answer: str) -> None:
    response = post(f"{url}{path}", text)
    assert response.status_code == status
    assert re.search(answer, response.text)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("mode", ["ok", "hang"])
def test_it_stops_on_a_signal_whatever_it_is_doing(
    get: Callable[..., requests.Response], number: signal.Signals, mode: str
) -> None:
    with started("--sleep", "600") as (process, url):
        post(f"{url}mode", mode)
        with pytest.raises(requests.ReadTimeout):
            get(url, 0.2)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--sleep", "-1"], "--sleep"), (["--port", "70000"], "cannot listen on port 70000"), (["--port", "x"], "--port")],
)
def test_bad_options_are_named(arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "example_app.third_party", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert message in done.stderr
