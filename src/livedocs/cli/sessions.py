"""`livedocs sessions`: who is connected to a running server."""

from __future__ import annotations

from typing import Any

import click

from livedocs.cli import service
from livedocs.cli.repositories import as_json, dry_run, json_line


@click.group()
def sessions() -> None:
    """See who is connected to a server process, and disconnect.

    The token needs the scope livedocs:admin; sessions of its tenant are seen, no others.
    """


@sessions.command("list")
@service.url
@service.token
@click.option("--subject", help="Only those of this user or service.")
@click.option("--uuid", help="Only those in the room of this UUID.")
@as_json
def list_(url: str, token: str, subject: str | None, uuid: str | None, *, as_json: bool) -> None:
    """Every session: id, who, from where, since when, in how many rooms."""
    for session in _all(url, token, {"subject": subject, "uuid": uuid}):
        if as_json:
            json_line(session)
        else:
            click.echo(
                f"{session['sid']}  {session['subject']:<24} {session['address']:<16} "
                f"{session['since']}  {session['room_count']} rooms"
            )


@sessions.command()
@click.argument("sids", metavar="SID...", nargs=-1)
@service.url
@service.token
@click.option("--subject", help="Every session of this user or service.")
@dry_run
def disconnect(sids: tuple[str, ...], url: str, token: str, subject: str | None, *, dry_run: bool) -> None:
    """Disconnect sessions for good. Their tokens stay valid: to keep somebody out, revoke those."""
    if not sids and subject is None:
        raise click.UsageError("Name sessions, or --subject.")
    found = {session["sid"]: session for session in _all(url, token, {"subject": subject})}
    chosen = [*sids, *(found if subject is not None else ())]
    with service.connect(url, token) as client:
        for sid in dict.fromkeys(chosen):
            who = found[sid]["subject"] if sid in found else "nobody of this process"
            if not dry_run:
                service.ask(client, "DELETE", f"/v1/admin/sessions/{sid}")
            click.echo(f"{'would disconnect' if dry_run else 'disconnected'} {sid} ({who})")


def _all(url: str, token: str, query: dict[str, str | None]) -> list[dict[str, Any]]:
    asked = {name: value for name, value in query.items() if value is not None}
    found: list[dict[str, Any]] = []
    with service.connect(url, token) as client:
        while True:
            page = service.ask(client, "GET", "/v1/admin/sessions", params={"limit": "500", **asked})
            found += page["sessions"]
            if page["next"] is None:
                return found
            asked["cursor"] = page["next"]
