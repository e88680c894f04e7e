"""The development OAuth provider as a process on a free port, and the steps of its flows over real HTTP."""

from __future__ import annotations

import base64
import hashlib
import html
import os
import re
import secrets
import signal
import subprocess
import sys
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlsplit

import httpx
import jwt
import pytest

from livedocs.demo import people

CALLBACK = "http://localhost:8000/auth/callback"
SECRET = "a-secret-of-this-test"
LOGIN = ("livedocs", SECRET)
SERVICE = ("acme-service", people.SERVICE_CLIENTS[0].secret)
SCOPE = "openid profile offline_access"


class Provider:
    """The running process, and the steps of its flows."""

    callback = CALLBACK
    login = LOGIN
    service_login = SERVICE
    scope = SCOPE

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port
        self.issuer = f"http://localhost:{port}"
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False)

    def authorize(self, user="alice", *, form=None, scope=SCOPE, challenge=None, **query):
        """Open the login page and choose; the verifier, and the answer of the first step that is not the page."""
        verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": "livedocs",
            "redirect_uri": CALLBACK,
            "scope": scope,
            "state": "the-state",
            "code_challenge": challenge or base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            **query,
        }
        query = {name: value for name, value in query.items() if value is not None}
        page = self.http.get("/authorize", params=query)
        if page.status_code != 200:
            return verifier, page
        field = re.search(r'name="page" value="([^"]*)"', page.text)
        choice = {"page": html.unescape(field[1]), "user": user} if form is None else form
        return verifier, self.http.post("/authorize", params=query, data=choice)

    def redeem(self, code, verifier, *, auth=LOGIN, **data):
        data = {
            "grant_type": "authorization_code",
            "redirect_uri": CALLBACK,
            "code": code,
            "code_verifier": verifier,
            **data,
        }
        return self.http.post("/token", data=data, auth=auth)

    def log_in(self, user="alice", **query):
        verifier, answer = self.authorize(user, **query)
        response = self.redeem(self.redirect(answer)["code"], verifier)
        assert response.status_code == 200, response.text
        return response.json()

    def refresh(self, token, *, auth=LOGIN, **data):
        return self.http.post(
            "/token", data={"grant_type": "refresh_token", "refresh_token": token, **data}, auth=auth
        )

    def service(self, *, auth=SERVICE, **data):
        return self.http.post("/token", data={"grant_type": "client_credentials", **data}, auth=auth)

    def introspect(self, token, *, auth=LOGIN):
        response = self.http.post("/introspect", data={"token": token}, auth=auth)
        assert response.status_code == 200, response.text
        return response.json()

    def dev(self, method, path, body=None):
        return self.http.request(method, f"/dev/{path}", json=body)

    def claims(self, token, audience):
        (key,) = jwt.PyJWKSet.from_dict(self.http.get("/jwks").json()).keys
        assert jwt.get_unverified_header(token)["kid"] == key.key_id
        return jwt.decode(token, key, algorithms=["RS256"], audience=audience, issuer=self.issuer)

    @staticmethod
    def redirect(response):
        """The parameters the browser is sent back with."""
        assert response.status_code == 302, response.text
        assert response.headers["location"].startswith(CALLBACK + "?")
        return dict(parse_qsl(urlsplit(response.headers["location"]).query))


@contextmanager
def started(data_dir, port=0):
    command = [sys.executable, "-W", "error", "-m", "livedocs.demo.oauth"]
    log = data_dir.parent / "provider.log"
    with log.open("a") as errors:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--data-dir", str(data_dir)],
            env={**os.environ, "LIVEDOCS_DEMO_CLIENT_SECRET": SECRET},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        with process.stdout:
            ready = process.stdout.readline()
        assert "ready on" in ready, log.read_text()
        provider = Provider(process, urlsplit(ready.split()[-1]).port)
        with provider.http:
            yield provider
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


@pytest.fixture(scope="module")
def provider(tmp_path_factory):
    with started(tmp_path_factory.mktemp("provider") / "data") as provider:
        yield provider


@pytest.fixture
def provider_on():
    """Start a provider on a data directory: a context manager."""
    return started


@pytest.fixture(autouse=True)
def as_at_the_start(provider):
    yield
    provider.dev("DELETE", "faults")
    for person in people.PEOPLE:
        provider.dev("DELETE", f"users/{person.name}")
