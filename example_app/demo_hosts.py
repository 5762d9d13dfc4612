"""The demo of several hosts: ``python -m example_app.demo_hosts [--fast]``.

It starts a Valkey server, the third parties, and the news site twice, as on two hosts: each under gunicorn, with its own directory.
It visits both hosts while a page is new, stale, purged and published, while Valkey is gone, and once Valkey is back without its
data. It prints what visitors see and how often the partners were called, and compares that with the promises of the documentation.
It stops its servers, and exits with 0 if all promises were kept.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from secrets import token_urlsafe

from example_app.chapters import NORMAL, Page, Plan, Row
from example_app.demo import NEW
from example_app.partners import NUMBER, weather_tag
from example_app.servers import ROOT, Server, environment, news_site, tail, third_party
from example_app.stopping import until_stopped
from example_app.third_party import PARTNERS
from example_app.valkey_server import Valkey, notice
from example_app.visits import Stage, StoryFailed, next_of, session

A, B = HOSTS = ("a", "b")
#: Visitors use one host name, whichever host a load balancer chooses. The name is a part of the keys.
NAME = {"Host": "news.example"}
FRONT = Page("", re.compile(r'id="number">([^<]*)<'), NAME)
ARTICLE = Page("articles/the-ten-second-box", re.compile(r"<h1>([^<]*)<"), NAME)
BERLIN, OSLO = (Page(f"weather/{city}", re.compile(r'id="report">([^<]*)<'), NAME) for city in ("Berlin", "Oslo"))

#: Five visitors at each host; the slow partner takes less time than a visitor of the front page would wait for it.
PLAN = replace(NORMAL, sleep=0.3, max_age=8, visitors=5, visits=3, pause=0.2)
FAST = replace(PLAN, max_age=5)
LAYOUT = "    {:<6}{:<34}{:>9}  {}"
KEPT, BROKEN = "as promised", "NOT AS PROMISED"


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise of the documentation, and whether it was kept."""

    text: str
    is_kept: bool

    def __str__(self) -> str:
        return f"    {KEPT if self.is_kept else BROKEN}: {self.text}"


class Story:
    """Visits two hosts, and prints the results.

    :param stages: the visitors of each host.
    :param shells: run a command of the cache on a host.
    :param valkey: the server between the hosts.
    """

    def __init__(self, stages: dict[str, Stage], shells: dict[str, Callable[..., str]], valkey: Valkey, running: Server) -> None:
        self.stages = stages
        self.shells = shells
        self.valkey = valkey
        self.running = running
        self.plan = stages[A].plan
        self.promises: list[Promise] = []
        self._calls = dict.fromkeys(PARTNERS, 0)
        self._chapters = 0

    def play(self) -> None:
        """Play all chapters.

        :raises StoryFailed: if a request gets an error, or no answer.
        """
        self._cold()
        self._stale()
        self._purge()
        self._publish()
        self._valkey_gone()
        self._valkey_back()

    # -- chapters ----------------------------------------------------------------------------------------------------

    def _cold(self) -> None:
        self._open("Nothing is stored, and {0.visitors} visitors come to each host at the same time.")
        self._together(FRONT)
        rows = self._until_fresh(FRONT)
        asked = self._asked()
        self._promise("each partner was asked once over both hosts (for the comments: once an article)", asked == _calls(1, 1, 3))
        self._promise("both hosts serve the same page", _one(rows))
        self._open("The page is fresh.")
        rows = self._visit(FRONT)
        self._promise("hits on both hosts, and nobody was asked", _statuses(rows) == {"HIT"} and self._asked() == _calls())

    def _stale(self) -> None:
        time.sleep(self.plan.max_age + 0.1)
        self._open("{0.max_age:g} s later the page is stale.")
        rows = self._visit(FRONT, times=1)
        is_served = _statuses(rows) <= {"STALE", "UPDATING"} and _one(rows)
        self._promise("both hosts serve the stale page at once", is_served)
        rows = self._until_fresh(FRONT)
        self._promise("one refresh: the slow partner was asked once over both hosts", self._asked()["number"] == 1)
        self._promise("both hosts serve what it brought", _one(rows))

    def _purge(self) -> None:
        self._open("Somebody purges the number, on host a.")
        self._shell(A, "purge", "--tag", NUMBER)
        rows = self._visit(FRONT, times=1, hosts=(B,))
        self._promise("host b does not serve the purged page at its next request", _statuses(rows).isdisjoint({"HIT", "STALE"}))
        rows = self._until_fresh(FRONT)
        self._promise("the slow partner was asked once more over both hosts", self._asked() == _calls(number=1))
        self._promise("both hosts serve the new page", _one(rows))

    def _publish(self) -> None:
        self._visit(ARTICLE, quietly=True)
        self._open("An editor publishes an article with a new title, on host a.")
        with self.stages[A].editor() as editor:
            form = {"title": NEW.title, "summary": NEW.summary, "text": "\n\n".join(NEW.paragraphs)}
            self.stages[A].press(editor, f"{ARTICLE.path}/edit", form)
        rows = self._visit(ARTICLE, hosts=(B, A))
        self._promise(
            "both hosts show the new title from their next request on", all(row.value == NEW.title for row in rows.values())
        )

    def _valkey_gone(self) -> None:
        self._until_fresh(BERLIN, quietly=True)
        self._asked()
        self.valkey.kill(self.running)
        self._open("Valkey is killed. The weather in Berlin was stored, that in Oslo was not.")
        rows = self._visit(BERLIN)
        self._promise("hits go on", _statuses(rows) == {"HIT"} and self._asked() == _calls())
        self._together(OSLO)
        rows = self._until_fresh(OSLO)
        self._promise("{0.visitors} visitors at each host for a new page: each host asked once", self._asked() == _calls(weather=2))
        told = self._shell(A, "purge", "--tag", weather_tag("Oslo"))
        self._promise("a purge on host a says that the other host has not heard of it", "this host only" in told)
        rows = self._visit(OSLO, times=1)
        is_as_told = rows[f"{A}1"].status == "MISS" and rows[f"{B}1"].status == "HIT"
        self._promise("it holds on host a, and not on host b", is_as_told and self._asked() == _calls(weather=1))

    def _valkey_back(self) -> None:
        self.running = self.valkey.start()
        self._open("Valkey is back, and empty.")
        seen = self._until_renewed(BERLIN)
        is_served = {row.status for rows in seen.values() for row in rows} <= {"HIT", "STALE", "UPDATING"}
        self._promise("a page that was fresh is served stale", is_served)
        self._promise("it is renewed once over both hosts", self._asked() == _calls(weather=1))
        row = self._visit(OSLO, times=1, hosts=(B,))[f"{B}1"]
        rows = self._until_fresh(OSLO)
        self._promise("the purge that host b had not heard holds there now", row.status not in ("HIT", "STALE", "UPDATING"))
        self._promise("that page is made once over both hosts", self._asked() == _calls(weather=1) and _one(rows))

    # -- visits ------------------------------------------------------------------------------------------------------

    def _visit(self, page: Page, *, times: int = 0, hosts: Sequence[str] = HOSTS, quietly: bool = False) -> dict[str, Row]:
        """Let one visitor of each host request a page, one after the other, and return the rows by host and number."""
        rows = {}
        for number in range(1, 1 + (times or self.plan.visits)):
            for host in hosts:
                rows[f"{host}{number}"] = self._heard(self.stages[host].visit(page))
        if not quietly:
            for host in hosts:
                self._show(host, [row for name, row in rows.items() if name[0] == host])
        return rows

    def _together(self, page: Page) -> None:
        """Let visitors of both hosts request a page at the same time."""
        answers: dict[str, SimpleQueue[Row]] = {host: SimpleQueue() for host in HOSTS}
        with ExitStack() as stack:
            for _ in range(self.plan.visitors):
                for host in HOSTS:
                    self.stages[host].send(stack.enter_context(session()), 0, page, answers[host])
            deadline = time.monotonic() + self.plan.patience
            for host in HOSTS:
                self._show(host, [self._heard(next_of(answers[host], deadline)) for _ in range(self.plan.visitors)])

    def _until_fresh(self, page: Page, *, quietly: bool = False) -> dict[str, Row]:
        """Visit a page on both hosts until both serve it fresh and whole, and return the last rows."""
        seen = self._until(page, lambda seen: all(_is_whole(rows[-1]) for rows in seen.values()), quietly=quietly)
        return {host: rows[-1] for host, rows in seen.items()}

    def _until_renewed(self, page: Page) -> dict[str, list[Row]]:
        """Visit a fresh page until one host has served it stale, and both serve the same fresh page again; return all rows."""

        def is_renewed(seen: dict[str, list[Row]]) -> bool:
            was_stale = any(row.status != "HIT" for rows in seen.values() for row in rows)
            lasts = {host: rows[-1] for host, rows in seen.items()}
            return was_stale and all(map(_is_whole, lasts.values())) and _one(lasts)

        return self._until(page, is_renewed)

    def _until(
        self, page: Page, is_reached: Callable[[dict[str, list[Row]]], bool], *, quietly: bool = False
    ) -> dict[str, list[Row]]:
        seen: dict[str, list[Row]] = {host: [] for host in HOSTS}
        deadline = time.monotonic() + self.plan.patience
        while time.monotonic() < deadline:
            for host in HOSTS:
                seen[host].append(self._heard(self.stages[host].visit(page)))
            if is_reached(seen):
                break
            time.sleep(self.plan.pause / 4)
        if not quietly:
            for host in HOSTS:
                self._show(host, seen[host])
        return seen

    def _shell(self, host: str, *words: str) -> str:
        """Run a command of the cache on a host, and print and return its output."""
        print(f"    {host:<6}$ flask stalecache {' '.join(words)}", flush=True)
        told = self.shells[host](*words)
        for line in told.splitlines():
            print(f"          {line}", flush=True)
        return told

    # -- telling -----------------------------------------------------------------------------------------------------

    def _open(self, heading: str) -> None:
        self._chapters += 1
        print(f"\n{self._chapters}. {heading.format(self.plan)}", flush=True)

    def _show(self, host: str, rows: Sequence[Row]) -> None:
        """Print the rows of one host in one line: the count of each status, the slowest request, and the last value."""
        counts = Counter(row.status for row in rows)
        statuses = ", ".join(f"{count} {status}" for status, count in counts.items())
        slowest = max(row.seconds for row in rows)
        print(LAYOUT.format(host, statuses, f"{slowest:.3f} s", rows[-1].value), flush=True)

    def _heard(self, row: Row) -> Row:
        """Return a row if it is a successful answer.

        :raises StoryFailed: if there was none, or an error.
        """
        if row.code != 200:
            raise StoryFailed(f"a visitor was answered with {row.value}")
        return row

    def _asked(self) -> dict[str, int]:
        """Print and return how often each partner was called since the last call of this method."""
        before, self._calls = self._calls, {name: self.stages[A].count(name) for name in PARTNERS}
        asked = {name: self._calls[name] - before[name] for name in PARTNERS}
        counts = ", ".join(f"{name} {count}" for name, count in asked.items() if count)
        print(f"    asked: {counts or 'nobody'}", flush=True)
        return asked

    def _promise(self, text: str, is_kept: bool) -> None:
        self.promises.append(Promise(text.format(self.plan), is_kept))
        print(self.promises[-1], flush=True)


def _statuses(rows: dict[str, Row]) -> set[str]:
    return {row.status for row in rows.values()}


def _is_whole(row: Row) -> bool:
    """Whether a row is a hit that shows a number, unlike placeholders."""
    return row.status == "HIT" and re.search(r"\d", row.value) is not None


def _one(rows: dict[str, Row]) -> bool:
    """Whether all rows show the same value."""
    return len({row.value for row in rows.values()}) == 1


def _calls(number: int = 0, weather: int = 0, comments: int = 0) -> dict[str, int]:
    return {"number": number, "weather": weather, "comments": comments}


def _shell_of(settings: dict[str, object]) -> Callable[..., str]:
    """Return a function that runs a command of the cache with the settings of a host, and returns its output."""

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "flask", "--app", "example_app:create_app", "stalecache", *words]
        done = subprocess.run(command, cwd=ROOT, env=environment(settings), capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    return run


def _run(plan: Plan) -> int:
    """Start the servers, play the story, and always stop the servers."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stalecache-")))
        valkey = stack.enter_context(closing(Valkey(folder)))
        running = valkey.start()
        print(f"{valkey.version}: {valkey.url}", flush=True)
        partner = stack.enter_context(third_party(plan.sleep, folder))
        sites, stages, shells = {}, {}, {}
        # In place of a database: both hosts have the same articles and logins.
        common = {
            "THIRD_PARTY_URL": partner.url,
            "SECRET_KEY": f"demo-{token_urlsafe()}",
            "ARTICLES_DIR": folder / "articles",
            "STALECACHE_STORE": valkey.url,
            "STALECACHE_SHARED_NAME": "news",
            "STALECACHE_MAX_AGE": plan.max_age,
        }
        for host in HOSTS:
            (folder / host).mkdir()
            settings = {**common, "STALECACHE_DIR": folder / host / "cache"}
            sites[host] = stack.enter_context(news_site(settings, folder / host))
            stages[host] = stack.enter_context(closing(Stage(plan, sites[host], partner)))
            shells[host] = _shell_of(settings)
        print(f"Third parties: {partner.url}, host a: {sites[A].url}, host b: {sites[B].url}", flush=True)
        print(f"\n{LAYOUT.format('Host', 'Answers', 'Slowest', 'The last one shows')}")
        story = Story(stages, shells, valkey, running)
        try:
            story.play()
        except StoryFailed as failure:
            story.promises.append(Promise(str(failure), False))
        return _sum_up(story.promises, sites)


def _sum_up(promises: Sequence[Promise], sites: dict[str, Server]) -> int:
    broken = [promise for promise in promises if not promise.is_kept]
    if not broken:
        print(f"\nAll {len(promises)} promises were kept.", flush=True)
        return 0
    print(f"\n{len(broken)} of {len(promises)} promises were broken:", file=sys.stderr)
    for promise in broken:
        print(promise, file=sys.stderr)
    for host, site in sites.items():
        print(f"\nThe log of host {host}:\n{tail(site.log)}", file=sys.stderr)
    return 1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m example_app.demo_hosts", description="Play the demo of several hosts.")
    parser.add_argument("--fast", action="store_true", help="use shorter times")
    options = parser.parse_args(arguments)
    if words := notice():
        print(words, flush=True)
    return until_stopped(lambda: _run(FAST if options.fast else PLAN))


if __name__ == "__main__":
    raise SystemExit(main())
