"""The part of the demo in which the dashboard is computed while the front page is visited: in the site, and in another process."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import requests

from example_app.chapters import ALONE, APART, BETWEEN, BOXES, COMPUTING, COUNTER, Chapter, Row, share_of
from example_app.visits import Stage, StoryFailed

BUTTON = "counts"
#: Seconds between two visits of the front page, and between two looks at the wall screen.
PAUSE, LOOK = 0.02, 0.25
#: The largest number of recounts of the dashboard: the site may not know yet of a worker that has just started.
TRIES = 5


def play(stage: Stage, worker: Callable[[], AbstractContextManager[object]]) -> None:
    """Play this part of the demo.

    :param worker: runs a worker of the cache for the site.
    :raises StoryFailed: at the end of the first chapter with an unexpected result.
    """
    with stage.editor() as editor:
        _tell(stage, ALONE, "alone", list(_for_a_while(stage)))
        stage.open(COMPUTING)
        rows, process = _while_computed(stage, editor)
        _tell(stage, None, "computing", rows, process)
        stage.open(APART)
        with worker():
            for _ in range(TRIES):
                rows, other = _while_computed(stage, editor)
                if not _is_of_site(other, rows, process):
                    break
            else:
                raise StoryFailed(f"the dashboard was computed by process {other} of the site, and not by the worker")
        _tell(stage, None, "apart", rows, other)


def _tell(stage: Stage, chapter: Chapter | None, name: str, rows: list[Row], process: str = "") -> None:
    if chapter is not None:
        stage.open(chapter)
    for row in rows:
        stage.keep(row)
    stage.judge(rows, None)
    if process:
        print(f"    the dashboard was computed by process {process}")
    print(share_of(name, rows), flush=True)


def _for_a_while(stage: Stage) -> Iterator[Row]:
    until = time.monotonic() + stage.plan.query
    while time.monotonic() < until:
        yield stage.visit(BOXES)
        time.sleep(PAUSE)


def _while_computed(stage: Stage, editor: requests.Session) -> tuple[list[Row], str]:
    """Have the dashboard recounted, and visit the front page until that is done. Return the visits and the process that counted."""
    stage.press(editor, BUTTON)
    before, rows, looked = stage.visit(COUNTER).value, list[Row](), time.monotonic()
    deadline = looked + stage.plan.patience
    while time.monotonic() < deadline:
        rows.append(stage.visit(BOXES))
        time.sleep(PAUSE)
        if time.monotonic() - looked > LOOK:
            looked = time.monotonic()
            if (now := stage.visit(COUNTER).value) != before:
                return rows, now.split(BETWEEN)[1]
    raise StoryFailed("the dashboard was not recounted")


def _is_of_site(process: str, rows: list[Row], other: str) -> bool:
    return process == other or process in {row.worker for row in rows}
