"""The login client's secret: from the environment, else made once for the data directory."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

VARIABLE: Final = "LIVEDOCS_DEMO_CLIENT_SECRET"
_FILE: Final = "client-secret"


def client_secret(data_dir: Path, environ: Mapping[str, str] | None = None) -> str:
    """The secret that the provider and the server it logs people in for share.

    Both may call this at the same moment for a new directory: the file appears complete or not at all, and the
    first to link it wins.
    """
    environ = os.environ if environ is None else environ
    if given := environ.get(VARIABLE, "").strip():
        return given
    path = data_dir / _FILE
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = data_dir / f".{_FILE}.{os.getpid()}.{secrets.token_hex(4)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return _read(path)


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()
