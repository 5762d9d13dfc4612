"""The third parties of the demo, which run as one process and are called over HTTP."""

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import pytest
import requests

from support import prepared
from support.prepared import PreparedProcess

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30

pytestmark = pytest.mark.server


@contextmanager
def started(*arguments: str) -> Iterator[tuple[PreparedProcess, str]]:
    """Run the third party; yield its process and the URL that it printed."""
    command = ["-m", "example_app.third_party", "--port", "0", *arguments]
    with prepared.printing(command, prepared.SERVER_MODULES, folder=ROOT, env=os.environ) as (process, printed):
        yield process, printed.readline().strip()


@pytest.fixture(scope="module")
def running() -> Iterator[str]:
    with started("--sleep", "0") as (_, url):
        yield url


@pytest.fixture(params=["number"])
def url(running: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a partner, with a slash."""
    partner = f"{running}{request.param}/"
    yield partner
    post(f"{partner}mode", "ok")
    post(f"{partner}sleep", "0")


each_partner = pytest.mark.parametrize("url", ["number", "weather", "comments"], indirect=True)


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


def call(partner: str) -> str:
    """Return the URL under which a partner is called."""
    return f"{partner}the-ten-second-box" if partner.endswith("comments/") else partner.removesuffix("/")


def test_the_slow_one_answers_a_number(running: str, get: Callable[..., requests.Response]) -> None:
    response = get(f"{running}number")
    assert response.status_code == 200
    assert 0 <= int(response.text) <= 1000


def test_the_others_answer_json(running: str, get: Callable[..., requests.Response]) -> None:
    weather = get(f"{running}weather?city=Berlin").json()
    assert set(weather) == {"degrees", "sky"}
    assert isinstance(weather["degrees"], int)
    counts = [get(f"{running}comments/{slug}").json()["comments"] for slug in ("one", "other", "one")]
    assert counts == sorted(set(counts)), "there are more each time"


@each_partner
@pytest.mark.parametrize(("mode", "status"), [("ok", 200), ("fail", 503), ("gone", 410)])
def test_a_mode_sets_the_status(url: str, get: Callable[..., requests.Response], mode: str, status: int) -> None:
    assert post(f"{url}mode", mode).text.strip() == mode
    assert get(call(url)).status_code == status


def test_a_mode_is_one_partners_own(running: str, url: str, get: Callable[..., requests.Response]) -> None:
    post(f"{url}mode", "fail")
    assert [get(f"{running}{path}").status_code for path in ("number", "weather", "comments/one")] == [503, 200, 200]


def test_down_closes_the_connection(url: str, get: Callable[..., requests.Response]) -> None:
    post(f"{url}mode", "down")
    with pytest.raises(requests.ConnectionError):
        get(call(url))


def test_flaky_fails_every_second_call(url: str, get: Callable[..., requests.Response]) -> None:
    post(f"{url}mode", "flaky")
    for _ in range(2):
        assert [get(call(url)).status_code for _ in range(2)] == [500, 200]
        with pytest.raises(requests.ConnectionError, match="reset"):
            get(call(url))
        assert get(call(url)).status_code == 200


@pytest.mark.parametrize(
    ("before", "change", "status"),
    [
        (("mode", "hang"), ("mode", "fail"), 503),
        (("mode", "hang"), ("mode", "ok"), 200),
        (("sleep", "600"), ("sleep", "0"), 200),
        (("sleep", "600"), ("mode", "gone"), 410),
    ],
)
def test_calls_under_way_follow_what_is_told(
    url: str, get: Callable[..., requests.Response], before: tuple[str, str], change: tuple[str, str], status: int
) -> None:
    post(f"{url}{before[0]}", before[1])
    with pytest.raises(requests.ReadTimeout):
        get(call(url), 0.2)
    answers: SimpleQueue[int] = SimpleQueue()
    count = int(get(f"{url}calls").text)
    caller = threading.Thread(target=lambda: answers.put(get(call(url)).status_code), daemon=True)
    caller.start()
    while int(get(f"{url}calls").text) == count:
        assert caller.is_alive()
    assert answers.empty()
    post(f"{url}{change[0]}", change[1])
    assert answers.get(timeout=PATIENCE) == status
    caller.join(PATIENCE)


@each_partner
def test_every_call_counts_and_asking_for_the_count_does_not(running: str, url: str, get: Callable[..., requests.Response]) -> None:
    partners = ("number", "weather", "comments")
    before = {name: int(get(f"{running}{name}/calls").text) for name in partners}
    get(call(url))
    post(f"{url}mode", "fail")
    get(call(url))
    counts = {name: int(get(f"{running}{name}/calls").text) - before[name] for name in partners}
    assert counts == {name: 2 * url.endswith(f"/{name}/") for name in partners}


@pytest.mark.parametrize(
    ("path", "text", "status", "answer"),
    [
        ("number/mode", "up", 400, r"'up' is no mode; there are ok, flaky, fail, hang, down, gone"),
        ("number/mode", "", 400, r"'' is no mode"),
        ("weather/sleep", "-1", 400, r"'-1' is not a number of seconds"),
        ("weather/sleep", "nan", 400, r"'nan' is not a number of seconds"),
        ("weather/sleep", "inf", 400, r"'inf' is not a number of seconds"),
        ("comments/sleep", "long", 400, r"'long'"),
        ("comments/calls", "0", 404, r"There are"),
        ("mode", "ok", 404, r"There are"),
        ("other/mode", "ok", 404, r"There are"),
    ],
)
def test_bad_input_is_refused(running: str, path: str, text: str, status: int, answer: str) -> None:
    response = post(f"{running}{path}", text)
    assert response.status_code == status
    assert re.search(answer, response.text)


@pytest.mark.parametrize("path", ["", "calls", "other", "other/calls"])
def test_nobody_else_is_there(running: str, get: Callable[..., requests.Response], path: str) -> None:
    assert get(f"{running}{path}").status_code == 404


@pytest.mark.grid
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("mode", ["ok", "hang"])
def test_it_stops_on_a_signal_whatever_it_is_doing(
    get: Callable[..., requests.Response], number: signal.Signals, mode: str
) -> None:
    with started("--sleep", "600") as (process, url):
        post(f"{url}number/mode", mode)
        with pytest.raises(requests.ReadTimeout):
            get(f"{url}number", 0.2)
        os.kill(process.pid, number)
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--sleep", "-1"], "--sleep"), (["--port", "70000"], "cannot listen on port 70000"), (["--port", "x"], "--port")],
)
def test_bad_options_are_named(arguments: list[str], message: str) -> None:
    done = prepared.run(["-m", "example_app.third_party", *arguments], folder=ROOT, env=os.environ, timeout=PATIENCE)
    assert done.returncode == 2
    assert message in done.stderr
