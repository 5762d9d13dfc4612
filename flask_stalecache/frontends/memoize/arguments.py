"""The arguments of a fetch function: in canonical form for the key, and as data for the recipe. Pure."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from difflib import get_close_matches
from enum import Enum
from typing import Any, get_type_hints

import msgspec

from ...errors import ConfigError, UnkeyableArgument

#: A form is made of strings and tuples of forms, and quoted as a Python literal, so that no separator can be injected.
Form = Any
#: Types that are recognised by name, since a pure module imports neither pathlib nor uuid.
_BY_NAME = {("pathlib", "PurePath"), ("pathlib._local", "PurePath"), ("uuid", "UUID")}
_ZONES = {("zoneinfo", "ZoneInfo")}
#: Integers with more bits are written in hexadecimal: Python refuses to write more than a few thousand decimal digits.
_LONG = 2000


class _Formless(Exception):
    """A value without a canonical form."""


def canonical(value: object, name: str, function: str) -> str:
    """Return a text that is equal for equal arguments of equal types, in every process, and different for others.

    :param name: the name of the argument, for the error.
    :param function: the name of the function, for the error.
    :raises UnkeyableArgument: if the value, or one in it, has no canonical form.
    """
    try:
        return ascii(_form(value))
    except (_Formless, RecursionError) as error:
        what = str(error) if isinstance(error, _Formless) else f"a {_name(type(value))} that contains itself or is too deep"
        raise UnkeyableArgument(
            f"the argument {name!r} of {function}() is or holds {what}, which has no canonical form: name it in ignored_args=, "
            "give key=, or pass plain values"
        ) from None


def _form(value: Any) -> Form:
    kind = type(value)
    if kind is int and value.bit_length() > _LONG:
        return ("int", hex(value))
    if kind in (str, bytes, int, float, bool, type(None)):
        return (kind.__name__, value)
    # By its type, here and below: isinstance() of a proxy checks the object behind it, which may be another one each time.
    if issubclass(kind, Enum):
        # Not `name` and `value`, since a member may have such a name.
        return ("enum", _name(kind), ascii(value._name_), _form(value._value_) if value._name_ is None else "")
    if kind in (list, tuple):
        return (kind.__name__, *map(_form, value))
    if kind is dict:
        return ("dict", *sorted(((_form(key), _form(item)) for key, item in value.items()), key=ascii))
    if kind in (set, frozenset):
        return (kind.__name__, *sorted(map(_form, value), key=ascii))
    return _form_of_object(value, kind)


def _form_of_object(value: Any, kind: type) -> Form:
    if is_dataclass(kind):
        return _form_of_dataclass(value, kind)
    if kind is timedelta:
        return ("timedelta", value.days, value.seconds, value.microseconds)
    if kind in (date, datetime, time):
        return (kind.__name__, value.isoformat(), getattr(value, "fold", 0), _zone_key(getattr(value, "tzinfo", None)))
    if kind is Decimal:
        return ("Decimal", str(value))
    if _is_named(kind):
        return (_name(kind), str(value))
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return ("named", _name(kind), *map(_form, tuple.__iter__(value)))
    if issubclass(kind, str):
        return ("text", _name(kind), str.__str__(value))
    raise _Formless(f"a {_name(kind)}")


def _form_of_dataclass(value: Any, kind: Any) -> Form:
    # The items of a list, dict or string are in no field.
    if issubclass(kind, (list, tuple, dict, set, frozenset, str, bytes, bytearray, int, float)):
        raise _Formless(f"a {_name(kind)}")
    names = [field.name for field in fields(kind)]
    for name in names:
        if not hasattr(value, name):
            raise _Formless(f"a {_name(kind)} without its field {name!r}")
    return ("dataclass", _name(kind), *((name, _form(getattr(value, name))) for name in names))


def _zone_key(zone: Any) -> str | None:
    """Return the key of a zone; ``None`` without one, and for a fixed offset, which the ISO format contains."""
    kind = type(zone)
    if zone is None or kind is timezone:
        return None
    # The offset alone says nothing about other seasons.
    if _is_named(kind, _ZONES) and type(zone.key) is str:
        return str(zone.key)
    raise _Formless(f"a time in a zone that is a {_name(kind)}")


def _is_named(kind: type, names: Set[tuple[str, str]] = _BY_NAME) -> bool:
    return any((base.__module__, base.__qualname__) in names for base in kind.__mro__)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


class Arguments:
    """The signature of a function.

    :param function: the function.
    :param name: its name, for errors.
    :param ignored: parameters that are not in the key.
    :raises ConfigError: if an ignored name is no parameter, or if Python can't read the signature.
    """

    def __init__(self, function: Callable[..., Any], name: str, ignored: Iterable[str]) -> None:
        self._function = function
        self._name = name
        self._ignored = frozenset(ignored)
        try:
            self._signature = inspect.signature(function)
        except (TypeError, ValueError):
            raise ConfigError(f"{name} does not tell its parameters: wrap it in a function that does") from None
        kinds = {parameter.kind: each for each, parameter in self._signature.parameters.items()}
        self._positional: str | None = kinds.get(inspect.Parameter.VAR_POSITIONAL)
        self._keywords: str | None = kinds.get(inspect.Parameter.VAR_KEYWORD)
        self._check_ignored()
        self._hints: dict[str, Any] | None = None

    def _check_ignored(self) -> None:
        known = list(self._signature.parameters)
        for name in sorted(self._ignored.difference(known)):
            if self._keywords is None:
                nearest = get_close_matches(name, known, n=1, cutoff=0)
                hint = f"; the nearest is {nearest[0]!r}" if nearest else ""
                raise ConfigError(f"ignored_args contains {name!r}, which is no parameter of {self._name}(){hint}")

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        try:
            return self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._name}() {error}") from None

    def key_part(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Return the canonical form of a call's arguments, with defaults and without the ignored ones.

        :raises UnkeyableArgument: if one has no canonical form.
        :raises TypeError: if the function can't be called with them.
        """
        bound = self._bound(args, kwargs)
        bound.apply_defaults()
        return ascii([(name, canonical(value, name, self._name)) for name, value in self._counted(bound.arguments)])

    def _counted(self, arguments: Mapping[str, Any]) -> list[tuple[str, Any]]:
        counted = [(name, value) for name, value in arguments.items() if name not in self._ignored and name != self._keywords]
        if self._keywords is None or self._keywords in self._ignored:
            return counted
        more: Mapping[str, Any] = arguments.get(self._keywords, {})
        return [*counted, *((name, more[name]) for name in sorted(more) if name not in self._ignored)]

    def to_json(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the arguments as data from which they can be rebuilt.

        ``None`` if one of them can't be rebuilt, or is ignored in the key, so that only the caller has it.
        """
        bound = self._bound(args, kwargs)
        given = {*bound.arguments, *(bound.arguments.get(self._keywords, ()) if self._keywords else ())}
        if given & self._ignored:
            return None
        try:
            data = {
                "args": [self._plain(name, value) for name, value in zip(self._places(len(args)), args, strict=True)],
                "kwargs": {name: self._plain(name, value) for name, value in kwargs.items()},
            }
            # A copy: the caller may change its lists and dicts later.
            copy: dict[str, Any] = json.loads(json.dumps(data, allow_nan=False))
            is_same = _is_same(self.from_json(copy), (args, dict(kwargs)))
        except (TypeError, ValueError, msgspec.MsgspecError, RecursionError, UnkeyableArgument):
            return None
        return copy if is_same else None

    def from_json(self, data: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments from the data that :meth:`to_json` returned.

        :raises TypeError: for data of another form; likewise :class:`ValueError`.
        """
        args, kwargs = (data.get("args"), data.get("kwargs")) if isinstance(data, Mapping) else (None, None)
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise TypeError("arguments are a list and a dict")
        self._bound(tuple(args), kwargs)
        return (
            tuple(self._made(name, value) for name, value in zip(self._places(len(args)), args, strict=True)),
            {name: self._made(name, value) for name, value in kwargs.items()},
        )

    def _places(self, count: int) -> list[str]:
        """Return the names of the parameters that positional arguments go to."""
        by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        names = [name for name, parameter in self._signature.parameters.items() if parameter.kind in by_place]
        return [*names[:count], *[self._positional or ""] * (count - len(names))]

    def _hint(self, name: str) -> Any:
        if self._hints is None:
            try:
                self._hints = get_type_hints(self._function)
            except Exception:
                # An annotation may name a type that exists for type checkers only.
                self._hints = {}
        return self._hints.get(name if name in self._signature.parameters else self._keywords or "", Any)

    def _plain(self, name: str, value: Any) -> Any:
        return value if self._hint(name) is Any else msgspec.to_builtins(value, str_keys=True, enc_hook=_to_plain)

    def _made(self, name: str, value: Any) -> Any:
        hint = self._hint(name)
        if hint is Any:
            return value
        made = msgspec.convert(value, type=hint, dec_hook=_from_plain, str_keys=True)
        # An integer is valid for a parameter of type float, and stays an integer.
        return value if type(value) is int and type(made) is float else made


def _to_plain(value: Any) -> Any:
    if not _is_named(type(value)):
        raise TypeError(f"{_name(type(value))} has no form in JSON")
    return str(value)


def _from_plain(wanted: type, value: Any) -> Any:
    if not _is_named(wanted):
        raise TypeError(f"{_name(wanted)} can't be made from JSON")
    return wanted(value)


def _is_same(one: object, other: object) -> bool:
    return canonical(one, "", "") == canonical(other, "", "")
