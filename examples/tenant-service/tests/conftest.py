"""A livedocs server with our tenant, and our service on it."""

from __future__ import annotations

import pytest
from order_tracker.tracker import OrderTracker

from livedocs.client import Client, ClientCredentials


@pytest.fixture(scope="session")
def livedocs_tenants():
    return {"shop": {"orders": "_id"}}


@pytest.fixture
def credentials(livedocs_server):
    """Our service is known to the OAuth service: its id and its secret."""
    oauth = livedocs_server.oauth
    ours = oauth.service("order-tracker", scopes=["livedocs:write"])
    return ours.name, oauth.client(ours)


@pytest.fixture
async def tracker(livedocs_server, credentials):
    tokens = ClientCredentials(livedocs_server.oauth.issuer, *credentials)
    async with Client(livedocs_server.url, tokens) as livedocs:
        yield OrderTracker(livedocs)
