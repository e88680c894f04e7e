"""A service that is confined to collections by its registration, on live sockets."""

from __future__ import annotations

import subprocess
import sys
from uuid import uuid4

import pytest

SERVICE = "acme-service"


@pytest.fixture
def confine(deployment):
    """`confine("notes")` has the command confine the service to these collections; `confine.release()` free it."""

    def tenant(command, *arguments):
        subprocess.run(
            [sys.executable, "-m", "livedocs", "tenant", command, "acme", SERVICE, *arguments],
            env=deployment.environ(),
            check=True,
            timeout=60,
        )

    def put(*collections):
        tenant("confine", *collections)

    put.release = lambda: tenant("release")
    yield put
    put.release()


async def returned(open_peer, peer, uuid, **options):
    """The service's next socket, in the room, once its registration has sent the former one away."""
    assert await peer.expect("$goaway") == [{"reason": "confined", "within_ms": 0}]
    await peer.until(peer.closed.is_set)
    again = await open_peer(SERVICE)
    return again, await again.call("JoinRoom", [str(uuid)], options)


async def test_a_confined_service_is_sent_and_shown_its_own_collections_only(open_peer, acme, grant, confine):
    uuid = uuid4()
    for subject in (f"client:{SERVICE}", "user:bob"):
        grant(uuid, subject)
    acme.notes.insert_one({"_id": uuid, "n": 0})
    acme.test.insert_one({"uuid": uuid, "n": 0})
    free, bob = await open_peer(SERVICE), await open_peer("bob")
    joined = (await free.call("JoinRoom", [str(uuid)], {"snapshot": True}))["joined"][str(uuid)]
    assert joined["snapshot"].keys() == {"notes", "test"}
    await bob.call("JoinRoom", [str(uuid)])
    confine("notes")
    # What its rooms gave it is over at once; nobody else notices.
    confined, answer = await returned(open_peer, free, uuid, snapshot=True)
    assert answer["joined"][str(uuid)]["snapshot"].keys() == {"notes"}
    acme.test.update_one({"uuid": uuid}, {"$set": {"n": 1}})
    acme.test.delete_one({"uuid": uuid})
    acme.notes.update_one({"_id": uuid}, {"$set": {"n": 1}})
    assert (await confined.expect("notes"))[0] == {"uuid": str(uuid), "n": 1}
    assert [(await bob.expect(name))[0]["uuid"] for name in ("test", "test", "notes")] == [str(uuid)] * 3
    # What it has missed is no way around either.
    since = answer["joined"][str(uuid)]["cursor"]
    again = await open_peer(SERVICE)
    resumed = await again.call("JoinRoom", [str(uuid)], {"since": since})
    assert resumed["joined"][str(uuid)]["resumed"] == 1
    assert (await again.expect("notes"))[0]["n"] == 1
    # Nor what it asks for by name, whether there is such a collection or not.
    for names in (["test"], ["notes", "test"], ["unknown"]):
        refused = await again.call("JoinRoom", [str(uuid)], {"collections": names})
        assert refused["refused"] == {str(uuid): {"code": "forbidden"}}
    assert str(uuid) in (await again.call("JoinRoom", [str(uuid)], {"collections": ["notes"]}))["joined"]
    confine.release()
    released, answer = await returned(open_peer, confined, uuid)
    acme.test.insert_one({"uuid": uuid, "n": 2})
    assert (await released.expect("test"))[0]["n"] == 2


async def test_a_registration_that_does_not_change_sends_nobody_away(open_peer, grant, acme, confine):
    uuid = uuid4()
    grant(uuid, f"client:{SERVICE}")
    confine("notes", "test")
    service, bob = await open_peer(SERVICE), await open_peer("bob")
    await service.call("JoinRoom", [str(uuid)])
    confine("test", "notes")
    acme.notes.insert_one({"_id": uuid})
    assert (await service.expect("notes"))[0]["uuid"] == str(uuid)
    await bob.settled()
