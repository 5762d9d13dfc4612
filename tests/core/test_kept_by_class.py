"""What is made from a class lasts as long as that class."""

from __future__ import annotations

import gc
import weakref

from flask_stalecache.core.kept_by_class import kept_by_class


def derived(kind: type) -> type:
    return type(f"Derived{kind.__name__}", (kind,), {})


def test_it_is_made_once_for_a_class_and_a_purpose() -> None:
    class Mine:
        pass

    first = kept_by_class(Mine, "_first", derived)
    assert kept_by_class(Mine, "_first", derived) is first
    assert kept_by_class(Mine, "_second", derived) is not first


def test_what_a_base_class_keeps_is_not_that_of_its_subclass() -> None:
    class Base:
        pass

    class Mine(Base):
        pass

    of_base = kept_by_class(Base, "_first", derived)
    assert kept_by_class(Mine, "_first", derived).__mro__[1] is Mine
    assert of_base.__mro__[1] is Base


def test_a_class_of_python_takes_no_attribute() -> None:
    made = kept_by_class(dict, "_first", derived)
    assert kept_by_class(dict, "_first", derived) is made
    assert not hasattr(dict, "_first")


def test_both_are_gone_when_nobody_uses_them() -> None:
    class Mine:
        pass

    both = weakref.ref(Mine), weakref.ref(kept_by_class(Mine, "_first", derived))
    del Mine
    gc.collect()
    assert [each() for each in both] == [None, None]
