"""Alive, and ready: the two questions of whoever runs the process."""

from __future__ import annotations

from quart import Blueprint, Response
from quart_schema import document_response, tag

from livedocs.errors import Unavailable
from livedocs.http.bodies import json_answer
from livedocs.http.probes import Probes
from livedocs.http.problems import problem
from livedocs.http.shapes import Health, Readiness


def blueprint(probes: Probes) -> Blueprint:
    """`/healthz` and `/readyz`; both say what is known, and ask nobody.

    Args:
        probes: what must be so for the server to be of use.
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
        state = probes.state()
        age = None if state.age is None else round(state.age, 1)
        checks = dict(state.checks)
        if state.ready:
            return json_answer({"ready": True, "checks": checks, "age": age})
        failing = [name for name, good in checks.items() if not good]
        missing = ", ".join(failing) or "nothing has been asked for too long"
        answer = problem(Unavailable(f"Not ready: {missing}.", retry_after=2), checks=checks, age=age)
        return Response(answer.body, answer.status, answer.headers)

    return routes
