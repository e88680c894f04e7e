"""The tests' OAuth service inside this process: httpx's calls to it go nowhere else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx
import respx

from livedocs.testing.oauth import OAuth

ISSUER = "https://oauth.livedocs.test"


@contextlib.contextmanager
def mocked(tenant: str) -> Iterator[OAuth]:
    """The service. httpx's calls to other hosts pass through.

    Args:
        tenant: of identities that are given by their name alone.
    """
    oauth = OAuth(ISSUER, tenant)

    def answer(request: httpx.Request) -> httpx.Response:
        found = oauth.answer(request.method, str(request.url), request.headers, request.read())
        return httpx.Response(found.status, content=found.body, headers={"Content-Type": "application/json"})

    with respx.mock(assert_all_called=False, assert_all_mocked=False) as router:
        router.route(url__startswith=f"{ISSUER}/").mock(side_effect=answer)
        router.route().pass_through()
        yield oauth
