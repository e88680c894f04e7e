"""What the demo says when it is up: the one line that programs wait for, then what to try."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from livedocs.demo.people import PEOPLE, TENANTS


def welcome(port: int, oauth_port: int, mongo_port: int, folder: Path) -> list[str]:
    """The lines."""
    url = f"http://localhost:{port}"
    people = "; ".join(
        f"{', '.join(one.name for one in PEOPLE if one.tenant == tenant.slug)} of {tenant.slug}"
        for tenant in TENANTS
    )
    token = f"{_command()} token --user alice --tenant acme"
    if oauth_port != 8001:
        token += f" --oauth-port {oauth_port}"
    return [
        f"livedocs is ready on {url}",
        "",
        f"  In a browser   {url}",
        f"                 log in as one of: {people}",
        "  In a terminal  create a document as alice:",
        f"                   TOKEN=$({token})",
        f'                   curl -s {url}/v1/docs/notes -H "Authorization: Bearer $TOKEN" \\',
        "                     -H 'Content-Type: application/json' -d '{\"title\": \"hello\"}'",
        f'                 and follow it:  {_command()} watch --url {url} --token "$TOKEN" UUID',
        f"  The HTTP API   {url}/docs",
        f"  OAuth          http://localhost:{oauth_port}",
        f"  MongoDB        mongodb://127.0.0.1:{mongo_port}/?replicaSet=rs0",
        f"  Logs           {folder / 'logs'}",
        "",
        "  Ctrl-C stops everything; the data stays for the next start.",
    ]


def _command() -> str:
    """How the `livedocs` of this environment is called from here."""
    ours = Path(sys.executable).with_name("livedocs")
    if shutil.which("livedocs") == str(ours):
        return "livedocs"
    return min(str(ours), os.path.relpath(ours), key=len)
