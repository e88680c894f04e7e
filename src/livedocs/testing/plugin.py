"""The pytest plugin: fixtures for contract tests against a real livedocs server. See docs/testing.md.

    livedocs_tenants           session   the tenants of the server; override it for your own collections
    livedocs_settings          session   further settings of the server; override it
    livedocs_oauth             session   the OAuth service, over HTTP
    livedocs_mongod            session   the MongoDB replica set
    livedocs_deployment        session   the server
    livedocs_server            function  the same, emptied for this test
    livedocs_sockets           function  opens sockets, for asynchronous tests
    livedocs_blocking_sockets  function  the same for synchronous tests
    livedocs_oauth_mock        function  the OAuth service inside this process, for code that asks it with httpx

None of them is used unless a test asks for it, and nothing is imported before. They need no pytest-asyncio, and
work with any of its modes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from livedocs.demo.replicaset import ReplicaSet
    from livedocs.model import CollectionKey
    from livedocs.testing.background import Background
    from livedocs.testing.barrier import Barrier
    from livedocs.testing.deployment import Deployment
    from livedocs.testing.oauth import OAuth
    from livedocs.testing.people import BlockingSockets, Sockets

T = TypeVar("T")

# ruff: noqa: PLC0415 - who has the plugin installed and does not use it, waits for nothing


@contextmanager
def _started(starting: AbstractContextManager[T], failure: type[Exception], says: str = "") -> Iterator[T]:
    """What has been started; if it could not be, why, in its own words and without ours."""
    with ExitStack() as stack:
        problem = None
        try:
            running = stack.enter_context(starting)
        except failure as error:
            problem = f"{says}{error}"
        if problem is not None:
            pytest.fail(problem, pytrace=False)
        yield running


@pytest.fixture(scope="session")
def livedocs_tenants() -> Mapping[str, Mapping[str, CollectionKey]]:
    """The tenants of the server: by slug, their collections and the field with a document's UUID.

    The first one is that of everybody who is given by name alone. Override it in your conftest.py.
    """
    return {"acme": {"notes": "_id"}, "globex": {"notes": "_id"}}


@pytest.fixture(scope="session")
def livedocs_settings() -> Mapping[str, Any]:
    """Further settings of the server, by their names in lower case without `LIVEDOCS_`. Override it."""
    return {}


@pytest.fixture(scope="session")
def livedocs_oauth(livedocs_tenants: Mapping[str, Mapping[str, CollectionKey]]) -> Iterator[OAuth]:
    """An OAuth service on a port of this machine, which issues, revokes and expires tokens as you say."""
    from livedocs.testing.oauth_http import serving

    with serving(next(iter(livedocs_tenants))) as oauth:
        yield oauth


@pytest.fixture(scope="session")
def livedocs_mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaSet]:
    """A MongoDB replica set of one member, on a free port: `.uri`."""
    from livedocs.demo.mongod import MongodError
    from livedocs.testing.deployment import mongod

    folder = tmp_path_factory.mktemp("livedocs-mongod")
    with _started(mongod(folder), MongodError, "livedocs needs a mongod for its tests: ") as replica_set:
        yield replica_set


@pytest.fixture(scope="session")
def _livedocs_background() -> Iterator[Background]:
    from livedocs.testing.background import running

    with running() as background:
        yield background


@pytest.fixture(scope="session")
def livedocs_deployment(
    tmp_path_factory: pytest.TempPathFactory,
    livedocs_mongod: ReplicaSet,
    livedocs_oauth: OAuth,
    livedocs_tenants: Mapping[str, Mapping[str, CollectionKey]],
    livedocs_settings: Mapping[str, Any],
    _livedocs_background: Background,
) -> Iterator[Deployment]:
    """A livedocs server on a free port, with everything that earlier tests have left in it."""
    from livedocs.testing.deployment import ServerFailed, deployed

    starting = deployed(
        tmp_path_factory.mktemp("livedocs"),
        livedocs_mongod.uri,
        livedocs_oauth,
        tenants=livedocs_tenants,
        settings=livedocs_settings,
        background=_livedocs_background,
    )
    with _started(starting, ServerFailed) as deployment:
        yield deployment


@pytest.fixture(scope="session")
def _livedocs_barrier(livedocs_deployment: Deployment, _livedocs_background: Background) -> Iterator[Barrier]:
    from livedocs.testing.barrier import Barrier

    barrier = Barrier(livedocs_deployment)
    yield barrier
    _livedocs_background.wait(barrier.aclose())


@pytest.fixture
def livedocs_server(livedocs_deployment: Deployment) -> Deployment:
    """The server, without documents, grants and tokens."""
    livedocs_deployment.reset()
    return livedocs_deployment


@pytest.fixture
def livedocs_sockets(
    livedocs_server: Deployment, _livedocs_barrier: Barrier, _livedocs_background: Background
) -> Iterator[Sockets]:
    """Opens sockets for people, and looks at what each is shown; closed after the test."""
    from livedocs.testing.people import Sockets

    sockets = Sockets(_livedocs_background, livedocs_server, _livedocs_barrier)
    yield sockets
    sockets.close()


@pytest.fixture
def livedocs_blocking_sockets(
    livedocs_server: Deployment, _livedocs_barrier: Barrier, _livedocs_background: Background
) -> Iterator[BlockingSockets]:
    """The same for tests that are no coroutines."""
    from livedocs.testing.people import BlockingSockets

    sockets = BlockingSockets(_livedocs_background, livedocs_server, _livedocs_barrier)
    yield sockets
    sockets.close()


@pytest.fixture
def livedocs_oauth_mock(livedocs_tenants: Mapping[str, Mapping[str, CollectionKey]]) -> Iterator[OAuth]:
    """The OAuth service inside this process: httpx's calls to its `issuer` reach no network."""
    from livedocs.testing.oauth_respx import mocked

    with mocked(next(iter(livedocs_tenants))) as oauth:
        yield oauth
