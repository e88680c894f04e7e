"""Migrations of the control database, forward and back, by one process at a time.

The scripts are numbered files with `name`, `dependencies`, `upgrade(db)` and `downgrade(db)`; pymongo-migrate
orders and runs them. What is ours: the state in the `migrations` collection (`_id` is the name, with a checksum,
so that an applied script that was edited is noticed), and the lock.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from pymongo import MongoClient
from pymongo_migrate.migrations import Migration, MigrationState
from pymongo_migrate.mongo_migrate import MongoMigrate

from livedocs.config import Settings
from livedocs.store.connection import MIGRATIONS, MongoDocument, connect_blocking
from livedocs.store.lock import Lock

ZERO = "zero"
"""The target that stands for the state before the first migration."""


class MigrationError(Exception):
    """The migrations cannot be run; the message names the one concerned."""


def migrations_dir() -> Path:
    """Where the scripts are: in the package when it was installed from a wheel, else in the checkout."""
    package = Path(__file__).parents[1]
    bundled = package / "_migrations"
    return bundled if bundled.is_dir() else package.parents[1] / "migrations"


def run(settings: Settings, target: str | None = None, *, directory: Path | None = None) -> list[str]:
    """Bring the control database to a migration; another process doing the same is waited for.

    Args:
        settings: which deployment and database.
        target: the migration to be the last one applied, forward or back from where the database is; `zero` for
            none of them; None for all of them.
        directory: where the scripts are, if not where they belong.

    Returns:
        The names of the migrations applied or undone, in that order; empty when there was nothing to do.

    Raises:
        MigrationError: no such target, or an applied script was edited or is missing.
        pymongo.errors.PyMongoError: MongoDB is out of reach, or a script failed; what it had done stays done.
    """
    directory = directory or migrations_dir()
    if not any(directory.glob("*.py")):
        msg = f"there are no migrations in {directory}"
        raise MigrationError(msg)
    with connect_blocking(settings) as client, Lock(client[settings.control_database], "migrations") as lock:
        migrations = _Migrations(client, settings.control_database, directory, lock)
        migrations.verify()
        migrations.go(target)
        return migrations.done


def status(settings: Settings, *, directory: Path | None = None) -> list[tuple[str, bool]]:
    """Every migration in order, and whether it is applied.

    Raises:
        pymongo.errors.PyMongoError: MongoDB is out of reach.
    """
    with connect_blocking(settings) as client:
        applied = set(client[settings.control_database][MIGRATIONS].distinct("_id"))
    names = sorted(path.stem for path in (directory or migrations_dir()).glob("*.py"))
    return [(name, name in applied) for name in names]


class _Migrations(MongoMigrate):  # type: ignore[misc]  # the library ships no types
    """pymongo-migrate with our state; the lock is looked at before every step."""

    def __init__(self, client: MongoClient[MongoDocument], database: str, directory: Path, lock: Lock) -> None:
        super().__init__(client, database, str(directory), MIGRATIONS, logging.getLogger("livedocs.store.migrate"))
        self._lock = lock
        self.done: list[str] = []

    def verify(self) -> None:
        """Raises MigrationError unless every applied script is there, as it was when it was applied."""
        for state in self.db_collection.find().sort("_id"):
            name = state["_id"]
            if name not in self.graph.migrations:
                msg = f"migration {name} is applied but not among the scripts: is this an older version?"
                raise MigrationError(msg)
            if state.get("checksum") != self._checksum(name):
                msg = f"migration {name} was changed after it had been applied"
                raise MigrationError(msg)

    def go(self, target: str | None) -> None:
        """Forward or back to the target."""
        if target == ZERO:
            self.downgrade()
        elif target is None or target in self.graph.migrations:
            self.migrate(target)
        else:
            msg = f"there is no migration {target}; there are {ZERO}, {', '.join(sorted(self.graph.migrations))}"
            raise MigrationError(msg)

    def get_state(self, migration: Migration) -> MigrationState:
        # Called before each step: a process that lost its lock must not begin another one.
        self._lock.check()
        state = self.db_collection.find_one({"_id": migration.name})
        return MigrationState(migration.name, state["applied_at"] if state else None)

    def set_state(self, status: MigrationState) -> None:
        self._lock.check()
        if status.applied is None:
            self.db_collection.delete_one({"_id": status.name})
        else:
            state = {"applied_at": status.applied, "checksum": self._checksum(status.name)}
            self.db_collection.replace_one({"_id": status.name}, state, upsert=True)
        self.done.append(status.name)

    def _checksum(self, name: str) -> str:
        return hashlib.sha256((self.migrations_path / f"{name}.py").read_bytes()).hexdigest()
