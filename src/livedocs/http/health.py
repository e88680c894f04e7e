"""Alive, and ready: the two questions of whoever runs the process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from quart import Blueprint, Response
from quart_schema import document_response, tag

from livedocs.errors import Unavailable
from livedocs.http.bodies import json_answer
from livedocs.http.problems import problem
from livedocs.http.shapes import Health, Readiness
from livedocs.telemetry import get_logger

_log = get_logger(__name__)

Probes = Mapping[str, Callable[[], Awaitable[bool]]]

# Seconds for all probes together; an orchestrator asks every few seconds and gives up soon.
_PATIENCE = 4.0


def blueprint(probes: Probes) -> Blueprint:
    """`/healthz` and `/readyz`.

    Args:
        probes: by name, what must be so for the server to be of use.
    """
    routes = Blueprint("health", __name__)

    @routes.get("/healthz")
    @tag(["health"])
    @document_response(Health)
    async def alive() -> Response:
        """The process answers."""
        return json_answer({"status": "ok"})

    @routes.get("/readyz")
    @tag(["health"])
    @document_response(Readiness)
    async def ready() -> Response:
        """Everything the server needs is there."""
        results = await asyncio.gather(*(_ask(name, probe) for name, probe in probes.items()))
        checks = dict(zip(probes, results, strict=True))
        if all(results):
            return json_answer({"ready": True, "checks": checks})
        failing = [name for name, good in checks.items() if not good]
        answer = problem(Unavailable(f"Not ready: {', '.join(failing)}.", retry_after=2), checks=checks)
        return Response(answer.body, answer.status, answer.headers)

    return routes


async def _ask(name: str, probe: Callable[[], Awaitable[bool]]) -> bool:
    """The probe's answer; one that fails or takes too long has said no."""
    try:
        async with asyncio.timeout(_PATIENCE):
            return await probe()
    except Exception as error:  # noqa: BLE001 - whatever went wrong, the answer is no
        _log.warning("probe_failed", probe=name, error=type(error).__name__)
        return False
