"""The provider's memory: one SQLite file, so that logins outlive a restart of the demo.

Secrets that a client presents (codes, refresh tokens) are kept as SHA-256 only. Every change that decides who wins
a race (using a code, rotating a refresh token) is one conditional UPDATE.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from livedocs.demo import people
from livedocs.demo.oauth.records import AccessToken, Code, Login, RefreshToken, Standing

REFRESH_SECONDS: Final = 30 * 86400
CODE_SECONDS: Final = 60
# A used code is remembered for a while after its end, since using it again ends the login (RFC 6749, 4.1.2).
_CODE_MEMORY_SECONDS: Final = 3600
_PRUNE_EVERY: Final = 1000

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS logins (
    id TEXT PRIMARY KEY, person TEXT NOT NULL, client_id TEXT NOT NULL, scope TEXT NOT NULL,
    ttl INTEGER NOT NULL, at INTEGER NOT NULL, ended INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS codes (
    hash TEXT PRIMARY KEY, login TEXT NOT NULL, redirect_uri TEXT NOT NULL, challenge TEXT NOT NULL,
    nonce TEXT, expires_at REAL NOT NULL, used INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS access_tokens (
    jti TEXT PRIMARY KEY, client_id TEXT NOT NULL, scope TEXT NOT NULL, issued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL, person TEXT, login TEXT, revoked INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS refresh_tokens (
    hash TEXT PRIMARY KEY, login TEXT NOT NULL, expires_at REAL NOT NULL, rotated INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS people (
    name TEXT PRIMARY KEY, tenant TEXT NOT NULL, groups TEXT NOT NULL, disabled INTEGER NOT NULL);
"""

_PRUNE: Final = (
    "DELETE FROM access_tokens WHERE expires_at < :now",
    "DELETE FROM refresh_tokens WHERE expires_at < :now",
    "DELETE FROM codes WHERE expires_at < :now - :code_memory",
    """DELETE FROM logins WHERE id NOT IN (SELECT login FROM codes UNION SELECT login FROM refresh_tokens
       UNION SELECT login FROM access_tokens WHERE login IS NOT NULL)""",
)


def digest(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


class State:
    """Everything the provider must not forget. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)  # it holds the signing key
        # One connection under one lock: a call takes microseconds, and no caller ever sees `database is locked`.
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._issued = 0
        with self._lock, self._db:
            self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;" + _SCHEMA)
            self._prune()

    def close(self) -> None:
        """Write everything back into the one file."""
        with self._lock:
            self._db.close()

    def secret(self, name: str, make: Callable[[], str]) -> str:
        """A value of the provider's own, made at the first call for this file."""
        with self._lock, self._db:
            row = self._db.execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchone()
            if row is None:
                value = make()
                self._db.execute("INSERT INTO secrets VALUES (?, ?)", (name, value))
                return value
            return str(row["value"])

    # Logins and codes

    def add_login(self, login: Login) -> None:
        """Remember a login."""
        self._change(
            "INSERT INTO logins (id, person, client_id, scope, ttl, at) VALUES (?, ?, ?, ?, ?, ?)",
            (login.id, login.person, login.client_id, login.scope, login.ttl, login.at),
        )

    def login(self, identifier: str) -> Login | None:
        """The login of that id."""
        row = self._row("SELECT * FROM logins WHERE id = ?", (identifier,))
        return _login(row, row["id"]) if row else None

    def set_ttl(self, login: str, ttl: int) -> None:
        """Have the login's further access tokens live that long."""
        self._change("UPDATE logins SET ttl = ? WHERE id = ?", (ttl, login))

    def end_login(self, login: str) -> None:
        """End a login and with it every token that came of it."""
        self._change("UPDATE logins SET ended = 1 WHERE id = ?", (login,))

    def add_code(self, code: Code) -> None:
        """Remember a code."""
        self._change(
            "INSERT INTO codes (hash, login, redirect_uri, challenge, nonce, expires_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (code.hash, code.login.id, code.redirect_uri, code.code_challenge, code.nonce, code.expires_at),
        )

    def code(self, code: str) -> Code | None:
        """The code as it was issued, used or not."""
        row = self._row(
            "SELECT codes.*, logins.* FROM codes JOIN logins ON logins.id = login WHERE hash = ?", (digest(code),)
        )
        if row is None:
            return None
        return Code(
            row["hash"],
            _login(row, row["login"]),
            row["redirect_uri"],
            row["challenge"],
            row["nonce"],
            row["expires_at"],
            bool(row["used"]),
        )

    def use_code(self, code: Code) -> bool:
        """Use a code up; False when somebody else was first."""
        return self._change("UPDATE codes SET used = 1 WHERE hash = ? AND used = 0", (code.hash,)) == 1

    # Tokens

    def add_access_token(self, token: AccessToken) -> None:
        """Remember an access token."""
        self._change(
            "INSERT INTO access_tokens (jti, client_id, scope, issued_at, expires_at, person, login)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                token.jti,
                token.client_id,
                token.scope,
                token.issued_at,
                token.expires_at,
                token.person,
                token.login,
            ),
        )
        self._issued += 1
        if self._issued % _PRUNE_EVERY == 0:
            with self._lock, self._db:
                self._prune()

    def access_token(self, jti: str) -> AccessToken | None:
        """The access token of that id."""
        row = self._row(
            "SELECT access_tokens.*, coalesce(logins.ended, 0) AS ended"
            " FROM access_tokens LEFT JOIN logins ON logins.id = login WHERE jti = ?",
            (jti,),
        )
        if row is None:
            return None
        flags = {name: bool(row[name]) for name in ("revoked", "ended")}
        return AccessToken(**{**dict(row), **flags})

    def revoke_access_token(self, jti: str) -> None:
        """Revoke that one token."""
        self._change("UPDATE access_tokens SET revoked = 1 WHERE jti = ?", (jti,))

    def revoke_all(self, *, person: str | None = None, client_id: str | None = None) -> int:
        """Revoke every token issued so far to a person or a client; how many access tokens were in force."""
        column, value = ("person", person) if person is not None else ("client_id", client_id)
        with self._lock, self._db:
            revoked = self._db.execute(
                f"UPDATE access_tokens SET revoked = 1 WHERE {column} = ? AND revoked = 0 AND expires_at > ?"  # noqa: S608 - one of two names above
                " AND (login IS NULL OR login IN (SELECT id FROM logins WHERE ended = 0))",
                (value, time.time()),
            ).rowcount
            self._db.execute(f"UPDATE logins SET ended = 1 WHERE {column} = ?", (value,))  # noqa: S608 - likewise
        return revoked

    def add_refresh_token(self, token: str, login: str) -> None:
        """Remember a refresh token."""
        self._change(
            "INSERT INTO refresh_tokens (hash, login, expires_at) VALUES (?, ?, ?)",
            (digest(token), login, time.time() + REFRESH_SECONDS),
        )

    def refresh_token(self, token: str) -> RefreshToken | None:
        """The refresh token as it was issued, rotated or not."""
        row = self._row(
            "SELECT refresh_tokens.*, logins.* FROM refresh_tokens JOIN logins ON logins.id = login"
            " WHERE hash = ?",
            (digest(token),),
        )
        if row is None:
            return None
        return RefreshToken(row["hash"], _login(row, row["login"]), row["expires_at"], bool(row["rotated"]))

    def rotate(self, token: RefreshToken) -> bool:
        """Use a refresh token up; False when somebody else was first."""
        statement = "UPDATE refresh_tokens SET rotated = 1 WHERE hash = ? AND rotated = 0"
        return self._change(statement, (token.hash,)) == 1

    # People

    def standing(self, name: str) -> Standing | None:
        """The person as the demo has them, with the changes made since."""
        person = people.person(name)
        row = self._row("SELECT * FROM people WHERE name = ?", (name,))
        if person is None or row is None:
            return Standing(person) if person else None
        changed = replace(person, tenant=row["tenant"], groups=tuple(json.loads(row["groups"])))
        return Standing(changed, bool(row["disabled"]))

    def set_standing(self, standing: Standing) -> None:
        """Change a person's tenant, groups, or whether they may log in."""
        person = standing.person
        self._change(
            "INSERT OR REPLACE INTO people (name, tenant, groups, disabled) VALUES (?, ?, ?, ?)",
            (person.name, person.tenant, json.dumps(person.groups), standing.disabled),
        )

    def reset_standing(self, name: str) -> None:
        """Undo every change of a person."""
        self._change("DELETE FROM people WHERE name = ?", (name,))

    def _row(self, query: str, values: tuple[Any, ...]) -> sqlite3.Row | None:
        with self._lock:
            row: sqlite3.Row | None = self._db.execute(query, values).fetchone()
            return row

    def _change(self, statement: str, values: tuple[Any, ...]) -> int:
        with self._lock, self._db:
            return self._db.execute(statement, values).rowcount

    def _prune(self) -> None:
        """Forget what can no longer matter. Called with the lock held."""
        for statement in _PRUNE:
            self._db.execute(statement, {"now": time.time(), "code_memory": _CODE_MEMORY_SECONDS})


def new_login(person: str, client_id: str, scope: str, ttl: int) -> Login:
    """A login that happens now."""
    return Login(secrets.token_urlsafe(16), person, client_id, scope, ttl, int(time.time()))


def _login(row: sqlite3.Row, identifier: str) -> Login:
    return Login(
        identifier, row["person"], row["client_id"], row["scope"], row["ttl"], row["at"], bool(row["ended"])
    )
