"""A shop with a database, by SQLAlchemy alone and by Flask-SQLAlchemy, for the tests of fetch functions in requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import orm

from flask_stalecache import StaleCache


class Base(orm.DeclarativeBase):
    """The tables."""


class Order(Base):
    """An order with its lines."""

    __tablename__ = "orders"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str]
    lines: orm.Mapped[list[Line]] = orm.relationship(back_populates="order")


class Line(Base):
    """A line of an order."""

    __tablename__ = "lines"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    order_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("orders.id"))
    order: orm.Mapped[Order] = orm.relationship(back_populates="lines")


class Price(Base):
    """A price."""

    __tablename__ = "prices"
    name: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    amount: orm.Mapped[int]


@dataclass
class DatabaseShop:
    """An app with a cache and a database.

    :ivar session: the session of the current request, as the app uses it.
    :ivar engine: the engine of the database; of Flask-SQLAlchemy only known in a context.
    """

    app: Flask
    cache: StaleCache
    session: Any
    engine: sa.Engine
    calls: list[str] = field(default_factory=list)

    @contextmanager
    def elsewhere(self) -> Iterator[orm.Session]:
        """A session of another process."""
        with orm.Session(self.engine) as session, session.begin():
            yield session

    def names(self) -> list[str]:
        with self.elsewhere() as session:
            return list(session.scalars(sa.select(Order.name).order_by(Order.id)))


def plain(app: Flask, cache: StaleCache, folder: Path, **pool: Any) -> DatabaseShop:
    """SQLAlchemy as Flask's documentation shows it: a session of the thread, which ends with the app context."""
    engine = sa.create_engine(f"sqlite:///{folder}/shop.db", **pool)
    session = orm.scoped_session(orm.sessionmaker(engine))

    @app.teardown_appcontext
    def remove(error: BaseException | None) -> None:
        session.remove()

    Base.metadata.create_all(engine)
    return DatabaseShop(app, cache, session, engine)


def flask_sqlalchemy(app: Flask, cache: StaleCache, folder: Path, **pool: Any) -> DatabaseShop:
    """Flask-SQLAlchemy: a session of the app context."""
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{folder}/shop.db"
    return _flask_sqlalchemy(app, cache, pool)


def in_memory(app: Flask, cache: StaleCache, folder: Path, **pool: Any) -> DatabaseShop:
    """Flask-SQLAlchemy on SQLite in memory: all sessions share one connection."""
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    return _flask_sqlalchemy(app, cache, pool)


def _flask_sqlalchemy(app: Flask, cache: StaleCache, pool: dict[str, Any]) -> DatabaseShop:
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = pool
    db = SQLAlchemy(model_class=Base, disable_autonaming=True)
    db.init_app(app)
    with app.app_context():
        engine = db.engine
    Base.metadata.create_all(engine)
    return DatabaseShop(app, cache, db.session, engine)


#: One shop of each kind.
KINDS = {"plain": plain, "flask_sqlalchemy": flask_sqlalchemy, "in_memory": in_memory}
