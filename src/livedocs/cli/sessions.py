"""`livedocs sessions`: who is connected to the server, whichever of its processes has the socket."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import click

from livedocs.cli import service
from livedocs.cli.repositories import as_json, dry_run, json_line, listed

_NOBODY = "nobody who was seen"


@click.group()
def sessions() -> None:
    """List and disconnect sessions.

    The token needs the scope livedocs:admin; sessions of its tenant are seen, no others. When a server process
    does not answer, standard error names it and the exit status is 75.
    """


@sessions.command("list")
@service.url
@service.token
@click.option("--subject", help="Only sessions of this user or service.")
@click.option("--uuid", help="Only sessions in the room of this UUID.")
@as_json
def list_(url: str, token: str, subject: str | None, uuid: str | None, *, as_json: bool) -> None:
    """List the sessions: id, subject, address, start, number of rooms."""
    found, silent = _all(url, token, {"subject": subject, "uuid": uuid})
    listed(len(found), "sessions", as_json=as_json)
    for session in found:
        if as_json:
            json_line(session)
        else:
            click.echo(
                f"{session['sid']}  {session['subject']:<24} {session['address']:<16} "
                f"{session['since']}  {session['room_count']} rooms"
            )
    _complain(silent, "its sessions are missing")


@sessions.command()
@click.argument("sids", metavar="SID...", nargs=-1)
@service.url
@service.token
@click.option("--subject", help="Disconnect every session of this user or service.")
@dry_run
def disconnect(sids: tuple[str, ...], url: str, token: str, subject: str | None, *, dry_run: bool) -> None:
    """Disconnect sessions for good. Their tokens stay valid: to keep somebody out, revoke those."""
    if not sids and subject is None:
        raise click.UsageError("Name sessions, or --subject.")
    # Of a whole subject the server says itself who they were.
    found, silent = _all(url, token, {"subject": subject}) if sids or dry_run else ([], [])
    who = {session["sid"]: session["subject"] for session in found}
    if dry_run:
        for sid in dict.fromkeys([*(who if subject is not None else ()), *sids]):
            click.echo(f"would disconnect {sid} ({who.get(sid, _NOBODY)})")
        _complain(silent, "its sessions are missing")
        return
    with service.connect(url, token) as client:
        pending, ended = [], set()
        if subject is not None:
            done = service.ask(client, "DELETE", "/v1/admin/sessions", params={"subject": subject})
            pending, ended = done["pending"], {session["sid"] for session in done["sessions"]}
            for sid in ended:
                click.echo(f"disconnected {sid} ({subject})")
        for sid in dict.fromkeys(sids):
            if sid not in ended:
                service.ask(client, "DELETE", f"/v1/admin/sessions/{sid}")
                click.echo(f"disconnected {sid} ({who.get(sid, _NOBODY)})")
    _complain(pending, "it has not confirmed yet")


def _all(url: str, token: str, query: dict[str, str | None]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every page; and the processes that have not answered for one of them."""
    asked = {name: value for name, value in query.items() if value is not None}
    found: list[dict[str, Any]] = []
    silent: dict[str, dict[str, Any]] = {}
    with service.connect(url, token) as client:
        while True:
            page = service.ask(client, "GET", "/v1/admin/sessions", params={"limit": "500", **asked})
            found += page["sessions"]
            silent |= {one["process"]: one for one in page["processes"] if not one["answered"]}
            if page["next"] is None:
                return found, list(silent.values())
            asked["cursor"] = page["next"]


def _complain(silent: Iterable[Mapping[str, Any]], consequence: str) -> None:
    """Say which processes have not answered, and end with a status that says so; nothing when all have."""
    missing = [f"process {one['pid']} on {one['host']} did not answer: {consequence}" for one in silent]
    for line in missing:
        click.echo(line, err=True)
    if missing:
        raise SystemExit(os.EX_TEMPFAIL)
