"""Serializers of the values of fetch functions. Each caller gets a value of its own, or an immutable one."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from hashlib import sha256
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Protocol, get_args, get_type_hints
from uuid import UUID

import msgspec
from itsdangerous import Signer
from markupsafe import Markup

from ...errors import BrokenValue, ConfigError, UnstorableValue

JSON = "application/json"
RESPONSE = "application/x-requests-response"
PICKLE = "application/x-python-pickle"
OWN = "application/octet-stream"
_PICKLE_SALT = "flask_stalecache.memoize"

#: Types whose values are immutable, including everything in them.
_IMMUTABLE = frozenset(
    {type(None), bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal, UUID, Markup, PurePath, PurePosixPath,
     PureWindowsPath, type(Path())}
)  # fmt: skip
#: Types that need no annotation for the value itself: its stored kind contains their name.
_TOLD = {each.__name__: each for each in (Markup, bytes, datetime, date, time, timedelta, Decimal, UUID, tuple, set, frozenset)}


class Serializer(Protocol):
    """The interface of ``serializer=``."""

    def dumps(self, value: Any) -> bytes:
        """Return a value as bytes."""

    def loads(self, data: bytes) -> Any:
        """Return the value that the bytes were made of."""


class Codec(Protocol):
    """The form in which the values of one function are stored."""

    def encode(self, value: Any, key: str) -> tuple[str, bytes]:
        """Return the kind and the bytes of a value; raise :class:`UnstorableValue` if it would not come back as it is."""

    def decode(self, kind: str, data: bytes, key: str) -> Callable[[], Any]:
        """Return a function that gives each caller the value; raise :class:`BrokenValue` if the bytes are not valid."""


def check_serializer(serializer: object) -> None:
    """Raise :class:`ConfigError` if the object is no serializer."""
    methods = [getattr(serializer, name, None) for name in ("dumps", "loads")]
    if serializer not in ("json", "pickle") and not all(map(callable, methods)):
        raise ConfigError(f"serializer={serializer!r}: give 'json', 'pickle', or an object with the methods dumps and loads")


def codec_of(serializer: Any, function: Callable[..., Any], secret_keys: Sequence[str | bytes], limit: int) -> Codec:
    """Return the codec for the values of a function.

    :param serializer: ``"json"``, ``"pickle"``, or an object with ``dumps`` and ``loads``.
    :param function: its return annotation says what JSON is decoded to.
    :param secret_keys: the keys to sign pickles with, the newest last.
    :param limit: the largest value that is stored, in bytes.
    :raises ConfigError: for another serializer, or for ``"pickle"`` without a key.
    """
    check_serializer(serializer)
    if serializer == "json":
        return JsonCodec(function, limit)
    if serializer != "pickle":
        return OwnCodec(serializer)
    if not secret_keys:
        raise ConfigError(
            "serializer='pickle' needs a SECRET_KEY, since to change the stored bytes would be to run code: set one, or leave "
            "the parameter out"
        )
    return PickleCodec(secret_keys)


def is_immutable(value: object) -> bool:
    """Whether a value is immutable, so that all callers may share it."""
    kind = type(value)
    if kind in _IMMUTABLE or isinstance(value, Enum):
        return True
    # A subclass of a tuple may have attributes that can be set; a named tuple has none.
    if isinstance(value, (tuple, frozenset)) and not hasattr(value, "__dict__"):
        return all(map(is_immutable, value))
    # Looked up in the type's own dictionary, since a plain subclass of a frozen dataclass can be changed.
    params = kind.__dict__.get("__dataclass_params__")
    is_frozen = params is not None and params.frozen
    return is_frozen and all(is_immutable(getattr(value, field.name)) for field in fields(kind))  # type: ignore[arg-type]


def _reader(read: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function that gives each caller the value. The value is decoded once to see that it can be."""
    value = read()
    return (lambda: value) if is_immutable(value) else read


class JsonCodec:
    """JSON, decoded to the function's return annotation; without one, to the types of JSON.

    :param function: the function.
    :param limit: the largest value that is stored, in bytes.
    """

    def __init__(self, function: Callable[..., Any], limit: int) -> None:
        self._function = function
        self._limit = limit
        self._hint: Any = None
        self._unresolved = ""
        self._decoders: dict[Any, msgspec.json.Decoder[Any]] = {}

    def encode(self, value: Any, key: str) -> tuple[str, bytes]:
        """Return the kind and the bytes of a value, after a check that they decode to the same value."""
        response = _response_class()
        if response is not None and type(value) is response and self._takes(response):
            return RESPONSE, _encode_response(value)
        kind = f"{JSON}; type={type(value).__name__}" if self._is_told(type(value)) else JSON
        try:
            data = _ENCODER.encode(value)
            # A value that is too large to be stored is not checked: that would take long.
            difference = "" if len(data) > self._limit else _difference(value, self.decode(kind, data, key)())
        except Exception as error:
            # Constructors and comparisons of the developer's types may raise anything.
            raise UnstorableValue(f"{error}; {self._advice(value)}") from error
        if difference:
            raise UnstorableValue(f"{difference}; {self._advice(value)}")
        return kind, data

    def decode(self, kind: str, data: bytes, key: str) -> Callable[[], Any]:
        """Return a function that gives each caller the value."""
        try:
            if kind == RESPONSE and self._takes(_response_class()):
                return _reader(partial(_decode_response, data))
            media, _, told = kind.partition("; type=")
            if media != JSON or (told and not self._is_told(_TOLD.get(told))):
                raise BrokenValue(f"stored as {kind}")
            wanted = _TOLD[told] if told else self._annotation()
            return _reader(partial(self._decoder(wanted).decode, data))
        except BrokenValue:
            raise
        except Exception as error:
            raise BrokenValue(str(error)) from error

    def _takes(self, kind: Any) -> bool:
        hint = self._annotation()
        # Also `Response | None`, for functions with a fallback.
        return hint is Any or kind in (hint, *get_args(hint))

    def _is_told(self, kind: type | None) -> bool:
        return kind is not None and _TOLD.get(kind.__name__) is kind and self._annotation() is Any

    def _annotation(self) -> Any:
        if self._hint is None:
            try:
                hint = get_type_hints(self._function, include_extras=True).get("return", Any)
            except Exception as error:
                # It may name types that exist for type checkers only.
                hint, self._unresolved = Any, str(error)
            # The annotation None is ignored: such a function may still return something.
            self._hint = Any if hint is type(None) else hint
        return self._hint

    def _decoder(self, wanted: Any) -> msgspec.json.Decoder[Any]:
        decoder = self._decoders.get(wanted)
        if decoder is None:
            decoder = self._decoders[wanted] = msgspec.json.Decoder(wanted, dec_hook=_from_plain)
        return decoder

    def _advice(self, value: object) -> str:
        if self._unresolved:
            return f"its return annotation can't be resolved: {self._unresolved}"
        hint = self._annotation()
        if hint is Any:
            return "annotate what the function returns, such as `-> list[Article]`, or give serializer="
        return f"the function's annotation says {hint}, and {type(value).__name__} came: mend one of them, or give serializer="


def _to_plain(value: Any) -> Any:
    if isinstance(value, (Markup, PurePath)):
        return str(value)
    raise TypeError(f"{type(value).__qualname__} has no form in JSON")


def _from_plain(wanted: type, value: Any) -> Any:
    if isinstance(wanted, type) and issubclass(wanted, (Markup, PurePath)) and isinstance(value, str):
        return wanted(value)
    raise TypeError(f"{wanted!r} can't be made from JSON")


_ENCODER = msgspec.json.Encoder(enc_hook=_to_plain)


def _difference(one: Any, other: Any) -> str:
    """Return in words how two values differ, in equality or in exact type at any depth, or "" if they don't."""
    kind = type(one)
    if kind is not type(other):
        return f"{kind.__name__} would come back as {type(other).__name__}"
    pairs = _pairs(one, other)
    if pairs is None:
        return "" if _is_equal(one, other) else f"{kind.__name__} would come back as another {kind.__name__}"
    if len(pairs[0]) != len(pairs[1]):
        return f"{kind.__name__} would come back with {len(pairs[1])} items instead of {len(pairs[0])}"
    return next(filter(None, map(_difference, *pairs)), "")


def _pairs(one: Any, other: Any) -> tuple[Sequence[Any], Sequence[Any]] | None:
    """Return the contents of two containers of one type, in comparable order; None if they are not containers."""
    if isinstance(one, dict):
        return [*one, *one.values()], [*other, *other.values()]
    if isinstance(one, (list, tuple)):
        return one, other
    if isinstance(one, (set, frozenset)):
        by_item = {item: item for item in other}
        return [*one], [by_item.get(item, _MISSING) for item in one] + [_MISSING] * (len(other) - len(one))
    names = [field.name for field in fields(one)] if is_dataclass(one) else getattr(type(one), "__struct_fields__", None)
    return None if names is None else ([getattr(one, name) for name in names], [getattr(other, name) for name in names])


_MISSING = object()


def _is_equal(one: Any, other: Any) -> bool:
    if isinstance(one, (datetime, time)):
        # Equal moments may differ in the zone, which may have lost its summer time, or in the hour that the clock repeats.
        return one == other and one.fold == other.fold and type(one.tzinfo) is type(other.tzinfo)
    return bool(one == other)


# -- responses of requests -------------------------------------------------------------------------------------------


def _response_class() -> Any:
    requests = sys.modules.get("requests")
    return getattr(requests, "Response", None)


def _encode_response(response: Any) -> bytes:
    if response._content is False:
        raise UnstorableValue("its body was not read: leave out stream=True")
    try:
        head = {
            "status": response.status_code,
            "reason": response.reason,
            "headers": list(response.headers.items()),
            "url": response.url,
            "encoding": response.encoding,
        }
        return json.dumps(head).encode("ascii") + b"\n" + (response.content or b"")
    except (AttributeError, TypeError, ValueError) as error:
        raise UnstorableValue(f"its head has no form in JSON: {error}") from error


def _decode_response(data: bytes) -> Any:
    from requests import Response
    from requests.structures import CaseInsensitiveDict

    packed, _, content = data.partition(b"\n")
    head = json.loads(packed)
    response = Response()
    response.status_code, response.reason = head["status"], head["reason"]
    response.headers = CaseInsensitiveDict([(name, value) for name, value in head["headers"]])
    response.url, response.encoding = head["url"], head["encoding"]
    response._content, response._content_consumed = content, True  # type: ignore[attr-defined]
    return response


# -- the developer's own choice --------------------------------------------------------------------------------------


class PickleCodec:
    """Pickles that are signed with the app's secret key, together with the cache key that they are stored under.

    :param secret_keys: the newest last.
    """

    def __init__(self, secret_keys: Sequence[str | bytes]) -> None:
        self._signer = Signer(
            [_as_bytes(key) for key in secret_keys], salt=_PICKLE_SALT, key_derivation="hmac", digest_method=sha256
        )

    def encode(self, value: Any, key: str) -> tuple[str, bytes]:
        """Return the kind, and the signature followed by the pickle."""
        try:
            data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            raise UnstorableValue(f"it can't be pickled: {error}") from error
        return PICKLE, self._signer.get_signature(_signed(key, data)) + b"." + data

    def decode(self, kind: str, data: bytes, key: str) -> Callable[[], Any]:
        """Return a function that gives each caller the value. Nothing is unpickled before its signature is checked."""
        signature, _, pickled = data.partition(b".")
        if kind != PICKLE or not self._signer.verify_signature(_signed(key, pickled), signature):
            raise BrokenValue("it is not signed with this app's secret key")
        try:
            return _reader(partial(pickle.loads, pickled))
        except Exception as error:
            raise BrokenValue(f"it can't be unpickled: {error}") from error


def _as_bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key


def _signed(key: str, data: bytes) -> bytes:
    return sha256(key.encode("utf-8", "surrogatepass")).digest() + data


class OwnCodec:
    """Encodes values with a serializer of the developer's.

    :param serializer: an object with ``dumps`` and ``loads``.
    """

    def __init__(self, serializer: Serializer) -> None:
        self._serializer = serializer

    def encode(self, value: Any, key: str) -> tuple[str, bytes]:
        """Return the kind and the serializer's bytes."""
        try:
            data = self._serializer.dumps(value)
        except Exception as error:
            raise UnstorableValue(f"its serializer raised {error!r}") from error
        if not isinstance(data, bytes):
            raise UnstorableValue(f"its serializer's dumps returned {type(data).__name__}: return bytes")
        return OWN, data

    def decode(self, kind: str, data: bytes, key: str) -> Callable[[], Any]:
        """Return a function that gives each caller the value."""
        if kind != OWN:
            raise BrokenValue(f"stored as {kind}")
        try:
            return _reader(partial(self._serializer.loads, data))
        except Exception as error:
            raise BrokenValue(f"its serializer raised {error!r}") from error
