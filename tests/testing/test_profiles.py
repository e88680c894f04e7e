"""Services whose tokens are those of well-known OAuth services keep the rights of the client."""

from __future__ import annotations

from uuid import uuid4

import pytest

from livedocs.demo.profiles import PROFILES


@pytest.mark.parametrize("profile", PROFILES)
def test_a_service_writes_with_its_scope_whatever_its_tokens_look_like(livedocs_server, profile):
    crm = livedocs_server.oauth.service(f"crm-{profile}", profile=profile)
    with livedocs_server.http(crm) as http:
        assert http.get("/v1/me").json()["subject"] == f"client:crm-{profile}"
        assert http.put(f"/v1/docs/notes/{uuid4()}", json={"n": 1}).status_code == 201


def test_there_is_no_other_profile(livedocs_server):
    with pytest.raises(ValueError, match="keycloak"):
        livedocs_server.oauth.service("crm", profile="Keycloak")
