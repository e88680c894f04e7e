"""Requests to the server: each with a token, tried again where that is safe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from livedocs._client import answers
from livedocs._client.answers import Answer
from livedocs._client.retries import Retries
from livedocs._client.tokens import TokenSource
from livedocs.config import is_loopback
from livedocs.errors import ClientError, InvalidToken, LivedocsError, ServerUnreachable

# Nothing has been sent when one of these is raised.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True, slots=True)
class Request:
    """A request.

    Attributes:
        body: bytes, or a function that begins a stream of them anew.
        repeatable: whether doing it twice is as good as once.
        once: whether the stream can be begun no second time, not even with another token.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Callable[[], AsyncIterable[bytes]] | None = None
    params: Mapping[str, Any] | None = None
    repeatable: bool = True
    once: bool = False


class Requests:
    """Sends requests, one connection pool for all of them.

    Args:
        url: of the server, without a path.
        timeout: seconds of silence after which a try has failed.
        transport: in place of the network, for tests.
    """

    def __init__(
        self,
        url: str,
        tokens: TokenSource,
        retries: Retries,
        *,
        timeout: float,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._tokens = tokens
        self._retries = retries
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=timeout,
            transport=transport,
            # A proxy of the environment cannot reach a server on this machine.
            trust_env=not is_loopback(urlsplit(url).hostname or ""),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, request: Request, *, gone: type[LivedocsError] | None = None) -> Answer:
        """The server's answer, a success.

        Args:
            request: what to ask for.
            gone: the refusal that means success when an earlier try may have been carried out: what is to be
                deleted is not there.

        Raises:
            LivedocsError: the server refuses, or would still do so after the last try.
            ClientError: no answer came, or none of the server's; or there is no token.
        """
        failures, repeated = 0, False
        while True:
            try:
                return await self.once(request)
            except (LivedocsError, ClientError) as error:
                if repeated and gone is not None and isinstance(error, gone):
                    return Answer(204, {}, b"")
                failures += 1
                wait = self._retries.wait(error, failures, repeatable=request.repeatable)
                if wait is None:
                    raise
                repeated = repeated or answers.uncertain(error)
            await asyncio.sleep(wait)

    async def once(self, request: Request) -> Answer:
        """The same without a further try but with another token, where the token is refused."""
        token = await self._tokens.token()
        try:
            return await self._exchange(request, token)
        except InvalidToken:
            other = await self._tokens.token(refused=token)
            if other == token or request.once:
                raise
        return await self._exchange(request, other)

    async def _exchange(self, request: Request, token: str) -> Answer:
        body = request.body
        headers = {**request.headers, "Authorization": f"Bearer {token}"}
        try:
            got = await self._http.request(
                request.method,
                request.path,
                params=request.params,
                headers=headers,
                content=body() if callable(body) else body,
            )
        except _NOT_SENT as error:
            raise ServerUnreachable(str(error) or type(error).__name__) from error
        except httpx.HTTPError as error:
            raise ServerUnreachable(str(error) or type(error).__name__, uncertain=True) from error
        answer = Answer(got.status_code, got.headers, got.content)
        if not answer.success:
            raise answers.error_of(answer.status, answer.headers, answer.body)
        return answer
