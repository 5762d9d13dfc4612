"""The part of the demo in which all partners of the front page are slow, flaky, hanging, dead, and back."""

import time
from collections.abc import Iterator

import requests

from example_app.chapters import BACK, BETWEEN, BOXES, MISBEHAVING, Manner, Row, is_whole, latencies
from example_app.third_party import PARTNERS
from example_app.visits import Stage

BUTTON = "partners"
#: The shortest time between two presses of the button, in seconds.
PATIENCE = 1.0


def play(stage: Stage) -> None:
    """Play this part of the demo.

    :raises StoryFailed: at the end of the first chapter with an unexpected result.
    """
    with stage.editor() as editor:
        for manner in MISBEHAVING:
            _begin(stage, manner, editor)
            _end(stage, manner, list(_in_a_row(stage)))
        _begin(stage, BACK, editor)
        _end(stage, BACK, list(_until_new(stage, editor)))
    stage.tell("number", "sleep", str(stage.plan.sleep))


def _begin(stage: Stage, manner: Manner, editor: requests.Session) -> None:
    """Set the behaviour of the partners, and have their values refreshed."""
    stage.open(manner.chapter)
    for name in PARTNERS:
        stage.tell(name, "sleep", str(stage.plan.sleep if manner.is_slow else 0))
        stage.tell(name, "mode", manner.mode)
    stage.press(editor, BUTTON)


def _end(stage: Stage, manner: Manner, rows: list[Row]) -> None:
    calls = stage.judge(rows, None)
    print(latencies(manner, rows, calls), flush=True)


def _in_a_row(stage: Stage) -> Iterator[Row]:
    for _ in range(stage.plan.in_a_row):
        yield stage.keep(stage.visit(BOXES))
        time.sleep(stage.plan.between)


def _until_new(stage: Stage, editor: requests.Session) -> Iterator[Row]:
    """Visit until the page is fresh and has all new values; an editor refreshes the values again if a fresh page lacks some."""
    first = stage.keep(stage.visit(BOXES))
    yield first
    deadline = pressed = time.monotonic()
    deadline += stage.plan.patience
    while time.monotonic() < deadline:
        time.sleep(stage.plan.between)
        row = stage.keep(stage.visit(BOXES))
        yield row
        if row.status == "HIT" and _is_new(row, first):
            return
        if row.status == "HIT" and time.monotonic() - pressed > PATIENCE:
            stage.press(editor, BUTTON)
            pressed = time.monotonic()


def _is_new(row: Row, old: Row) -> bool:
    """Return whether the values of all partners have changed."""
    return is_whole(row) and all(
        one != other for one, other in zip(row.value.split(BETWEEN), old.value.split(BETWEEN), strict=True)
    )
