"""Line 21 of docs/security.md on running servers: tokens checked by signature, and by both."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import httpx
import pytest


@pytest.mark.parametrize("mode", ["jwt", "jwt+introspect"])
async def test_a_socket_and_a_request_get_in_by_signature_and_nobody_else_does(start_server, wire, oauth, mode):
    server = start_server(oauth_mode=mode, introspection_interval=0.5, introspection_cache=0)
    token = server.token("alice")
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:

        async def ask(token):
            answer = await client.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
            return answer.status_code, answer.json()

        status, said = await ask(token)
        assert (status, said["subject"], said["tenant"]) == (200, "user:alice", "acme")
        head, body, _ = token.split(".")
        for other in (f"{head}.{body}.", f"{head}.{body}.AAAA", "nonsense"):
            assert (await ask(other))[1]["code"] == "invalid_token"
        made = await wire(at=server)
        await made.send("40" + json.dumps({"token": token}))
        assert (await made.text()).startswith("40")
        async with httpx.AsyncClient(base_url=oauth.issuer, trust_env=False) as provider:
            assert (await provider.post("/dev/revoke", json={"token": token})).json()["revoked"] == 1
        if mode == "jwt":
            # As stated: a signature cannot be taken back.
            assert (await ask(token))[0] == 200
            return
        assert b"token_revoked" in await made.rest()
        async with asyncio.timeout(5):
            while (await ask(token))[0] == 200:
                await asyncio.sleep(0.05)
        assert (await ask(token))[1]["code"] == "invalid_token"


def test_doctor_says_what_a_signature_alone_cannot_see(deployment):
    environ = deployment.environ(oauth_mode="jwt")
    command = [sys.executable, "-m", "livedocs", "doctor"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert "the issuer's key set holds keys for signatures" in done.stdout
    assert "a revocation is not seen" in done.stdout
