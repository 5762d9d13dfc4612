"""Full or read-only disks: small real ones where a process may mount them, and else the errors that Python would see."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

from support.files import replace_text
from support.servers import Server, wait_for

WORKERS = 2


class Shop:
    """An app on a server, whose pages show what is in a file."""

    def __init__(self, server: Server, place: Path) -> None:
        self.server = server
        self.directory = place / "caches" / "cache"
        self.content = place / "content"
        self.numbers = count(1)

    def publish(self) -> str:
        """Change what the pages show, and return it."""
        text = f"number {next(self.numbers)}"
        replace_text(self.content, text)
        return text

    def by_all(self, path: str) -> list[Any]:
        """Ask until all workers have answered, and return all the answers, good ones."""
        answers: list[Any] = []

        def have_all() -> bool:
            answers.append(self.server.get(path))
            assert answers[-1].status == 200, answers[-1].text
            return len({answer.headers["X-Pid"] for answer in answers}) == WORKERS

        wait_for(have_all)
        return answers

    def failures(self) -> dict[str, int]:
        """Return how often the store has failed in each worker."""
        return {answer.headers["X-Pid"]: int(answer.headers["X-Failures"]) for answer in self.by_all("/page/seen")}

    def purge_reaches_all(self) -> bool:
        """Purge, and say whether that was possible and no worker shows what was purged."""
        text = self.publish()
        if self.server.get("/purge").status != 200:
            return False
        return {answer.text for answer in self.by_all("/page/seen")} == {text}

    def is_stored(self) -> bool:
        """Say whether all workers serve a page that one of them has stored, and its file is there."""
        name = f"/page/{self.publish().replace(' ', '-')}"
        words = {answer.cache for answer in self.by_all(name)[1:]}
        return words <= {"HIT"} and bool(list(self.directory.glob("??/*")))
