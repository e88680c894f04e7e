"""The commands of `livedocs grant` that ask a running server: it knows the sockets, and the rules for a caller."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import orjson

from livedocs.cli import service
from livedocs.cli.repositories import as_json, dry_run, json_line

_BATCH = 1000


@click.command()
@click.argument("uuid")
@click.argument("subject")
@click.option(
    "--group",
    "groups",
    multiple=True,
    help="Group of the subject.  [default: for administrators, those of its live sockets]",
)
@service.url
@service.token
@as_json
def explain(uuid: str, subject: str, groups: tuple[str, ...], url: str, token: str, *, as_json: bool) -> None:
    """Explain why SUBJECT may or may not see UUID.

    The token is an owner's of the UUID, or has the scope livedocs:admin. An administrator is also told the groups
    and the sockets that the subject has now.
    """
    with service.connect(url, token) as client:
        query = {"subject": subject, "group": list(groups)}
        found = service.ask(client, "GET", f"/v1/grants/{uuid}/explain", params=query)
    if as_json:
        json_line(found)
        return
    may = f"may: {found['role']}" if found["allowed"] else f"may not: {found['reason']}"
    until = f" until {found['until']}" if "until" in found else ""
    click.echo(f"{subject} {may}{until}")
    names = " ".join(found["groups"]["names"]) or "none"
    click.echo(f"groups    {names} ({found['groups']['source']})")
    for rule in found["rules"]:
        click.echo(f"grant     {_rule(rule)}")
    for scope in found["scopes"]:
        click.echo(f"scope     {scope['scope']:<32} {scope['means']}")
    if not found["rules_complete"]:
        click.echo("grant     further groups have grants; name those of the subject with --group")
    if (sockets := found.get("sockets")) is None:
        return
    click.echo(f"sockets   {sockets['of_subject']} of the subject, {sockets['in_room']} in the room")
    for socket in sockets["held"]:
        click.echo(f"socket    {socket.get('sid', ''):<34} {socket.get('address', ''):<16} {socket['since']}")


def _rule(rule: dict[str, Any]) -> str:
    grant = rule["grant"]
    states = {True: "lets in", False: "does not concern the subject", None: "would let in"}
    state = states[rule["applies"]] if rule["in_force"] else "ended"
    return f"{grant['subject']:<32} {grant['role']:<8} {state}"


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@service.url
@service.token
@as_json
@dry_run
def bulk(file: Path, url: str, token: str, *, as_json: bool, dry_run: bool) -> None:
    """Change the grants that FILE names, a JSON object a line: uuid, subject, role, expires_at.

    A role of null takes the grant away. Ends with status 1 when lines were refused; the others are carried out.
    """
    changed = refused = 0
    with service.connect(url, token) as client:
        for batch in _batches(_lines(file)):
            if dry_run:
                for number, item in batch:
                    click.echo(f"line {number}: {_would(item)}")
                continue
            items = [item for _, item in batch]
            answer = service.ask(client, "POST", "/v1/grants:bulk", json={"items": items})
            for (number, _), result in zip(batch, answer["results"], strict=True):
                if as_json:
                    json_line({"line": number, **result})
                elif "code" in result:
                    click.echo(f"line {number}: {result['code']}: {result['detail']}", err=True)
            changed += answer["succeeded"]
            refused += answer["failed"]
    if dry_run:
        return
    if not as_json:
        click.echo(f"{changed} changed, {refused} refused")
    if refused:
        raise SystemExit(1)


def _lines(file: Path) -> Iterator[tuple[int, Any]]:
    """What stands on each line, with its number; blank ones are left out."""
    with file.open("rb") as source:
        for number, line in enumerate(source, 1):
            if not line.strip():
                continue
            try:
                yield number, orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise click.ClickException(f"line {number}: {error}") from None


def _batches(lines: Iterator[tuple[int, Any]]) -> Iterator[list[tuple[int, Any]]]:
    batch: list[tuple[int, Any]] = []
    for line in lines:
        batch.append(line)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _would(item: Any) -> str:
    if not isinstance(item, dict):
        return "no object"
    if item.get("role") is None:
        return f"{item.get('subject')} would have no grant on {item.get('uuid')}"
    return f"{item.get('subject')} would be {item['role']} of {item.get('uuid')}"
