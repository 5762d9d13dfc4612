"""The end of a ``match``, at run time."""

from __future__ import annotations

from typing import Any

import pytest

from flask_stalecache.core.exhaustive import assert_never


def test_a_case_that_no_branch_handles_is_an_error() -> None:
    unhandled: Any = "another"
    with pytest.raises(AssertionError, match="unhandled case: 'another'"):
        assert_never(unhandled)
