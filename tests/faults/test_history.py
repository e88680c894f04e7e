"""Every guarantee, while everything goes wrong: two server processes, three mongod, each fault at least once."""

from __future__ import annotations

import asyncio
import copy
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from rig.checker import check
from rig.deployment import Deployment
from rig.epochs import Reader
from rig.figures import dumps, figures, line
from rig.nemesis import FAULTS
from rig.recording import Answered, Asked, Connection, Delivered, Recording, Told
from rig.timeline import page
from rig.trial import Outcome, Sizes, Trial

# The rare ones first, so that what comes later happens to processes that have been through something.
ORDER = [
    *("provider_wrong_shape", "kill_server", "stall_client", "kill_primary", "cut_sockets", "provider_slow"),
    *("freeze_primary", "new_tenant", "stall_reads", "stall_sockets", "lose_majority", "fail_reads"),
    *("provider_error_500", "lose_history", "step_down", "freeze_server", "cut_stream", "provider_gone"),
    *("change_groups", "cut_imports"),
]


async def _run(folder: Any) -> Outcome:
    async with Deployment(folder) as deployment:
        return await Trial(deployment, "test", Sizes(people=8)).run(ORDER, pause=0.3)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    folder = tmp_path_factory.mktemp("faults")
    # In a thread: the loop that asyncio.run makes and closes must not be the one that pytest-asyncio has set.
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(asyncio.run, _run(folder)).result()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def measured(outcome: Outcome, pytestconfig: pytest.Config) -> dict[str, Any]:
    """The figures; they and the picture of the run stay in `test-results/faults`."""
    found = figures(outcome.recording, outcome.world, outcome.verdict)
    folder = pytestconfig.rootpath / "test-results" / "faults"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures.json").write_text(dumps(found))
    html = page(
        outcome.recording, outcome.world, outcome.verdict, found, f"livedocs under faults: {line([found])}"
    )
    (folder / "timeline.html").write_text(html)
    return found


def test_the_guarantees_hold_under_every_fault(outcome: Outcome, measured: dict[str, Any]):
    sys.stdout.write(f"{line([measured])}\n")
    assert {fault.name for fault in outcome.recording.faults} == FAULTS.keys()
    assert [str(violation) for violation in outcome.verdict.violations] == []


def test_the_run_was_worth_checking(outcome: Outcome, measured: dict[str, Any]):
    # A run in which nothing happened would be without violations, too.
    assert measured["events_checked"] > 1000
    assert measured["resumes"] > 20
    assert measured["resyncs"] > 0
    assert measured["snapshots_checked"] > 20
    assert measured["transactions_seen"] > 50
    assert measured["revocations"] > 5
    assert outcome.verdict.counts["unknown_happened"] > 0
    assert outcome.verdict.counts["refused_unavailable"] > 0
    assert outcome.verdict.counts["judged_after_groups"] + outcome.verdict.counts["revoked_of_groups"] > 0
    assert outcome.verdict.counts["imports_that_wrote"] == 3
    asked = [entry for connection in outcome.recording.connections for entry in connection.entries]
    assert {entry.forged for entry in asked if isinstance(entry, Asked)} == {"", "made_up", "borrowed"}
    assert {connection.who.tenant for connection in outcome.recording.connections} == {"acme", "globex"}
    # The crashed process came back and was used again.
    assert {connection.process for connection in outcome.recording.connections} & {"a2", "b2"}
    assert 0 < measured["longest_gap_after_losing_the_primary"] < 30
    assert 0 < measured["revocation_p50"] < 2


def test_the_timeline_shows_what_happened_and_needs_nothing_from_elsewhere(
    outcome: Outcome, measured: dict[str, Any]
):
    html = page(outcome.recording, outcome.world, outcome.verdict, measured, "a run")
    for name in FAULTS:
        assert name in html
    assert "Violations: 0" in html
    assert "<script" not in html
    assert "src=" not in html
    assert html.count("https://") == 0


# -- the same recording, spoiled: the checker would have noticed --

Place = tuple[Connection, int]


def _live(recording: Recording, *, least: int = 4) -> Place:
    """An event in the middle of a long stretch without an answer or a control event in between."""
    for connection in recording.connections:
        run = 0
        for index, entry in enumerate(connection.entries):
            run = run + 1 if isinstance(entry, Delivered) else 0
            rooms = (
                {each.data["uuid"] for each in connection.entries[index - least + 1 : index + 1]}
                if run >= least
                else ()
            )
            if len(rooms) == 1:
                return connection, index - least // 2
    raise AssertionError("no stretch of events in one room")


def _dropped(recording: Recording) -> None:
    connection, index = _live(recording)
    del connection.entries[index]


def _doubled(recording: Recording) -> None:
    connection, index = _live(recording)
    connection.entries.insert(index, connection.entries[index])


def _reordered(recording: Recording) -> None:
    connection, index = _live(recording)
    found = connection.entries
    found[index], found[index + 1] = found[index + 1], found[index]


def _revoked(recording: Recording) -> Place:
    """A `$revoked` after which the room had further events, told to others."""
    for connection in recording.connections:
        for index, entry in enumerate(connection.entries):
            if isinstance(entry, Told) and entry.name == "$revoked" and entry.body["reason"] == "revoked":
                return connection, index
    raise AssertionError("nobody was revoked")


def _delivered_after_the_revoke(recording: Recording) -> None:
    connection, index = _revoked(recording)
    told = connection.entries[index]
    assert isinstance(told, Told)
    later = next(
        entry
        for other in recording.connections
        for entry in other.entries
        if other.who.tenant == connection.who.tenant
        and isinstance(entry, Delivered)
        and entry.data["uuid"] == told.body["uuid"]
        and entry.at > told.at
    )
    connection.entries.insert(index + 1, replace(later, at=told.at))


def _delivered_to_the_other_tenant(recording: Recording) -> None:
    connection, index = _live(recording)
    event = connection.entries[index]
    assert isinstance(event, Delivered)
    for other in recording.connections:
        if other.who.tenant != connection.who.tenant:
            for place, entry in enumerate(other.entries):
                if isinstance(entry, Delivered) and entry.data["uuid"] == event.data["uuid"]:
                    other.entries.insert(place, event)
                    return
    raise AssertionError("the other tenant has no such room")


def _answer(recording: Recording, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    return next(
        given
        for connection in recording.connections
        for entry in connection.entries
        if isinstance(entry, Answered)
        for given in entry.body.get("joined", {}).values()
        if wanted(given)
    )


def _wrong_snapshot(recording: Recording) -> None:
    given = _answer(recording, lambda each: bool(each.get("snapshot", {}).get("notes")))
    given["snapshot"]["notes"][0]["n"] = -1


def _without_resync(recording: Recording) -> None:
    # All of them: one by itself may stand for a gap in which nothing happened. One for `access` tells of another
    # kind of gap.
    told = 0
    for connection in recording.connections:
        kept = [entry for entry in connection.entries if not _tells_of_a_gap(entry)]
        told += len(connection.entries) - len(kept)
        connection.entries[:] = kept
    assert told, "nobody was resynced"


def _tells_of_a_gap(entry: object) -> bool:
    return isinstance(entry, Told) and entry.name == "$resync" and entry.body["reason"] != "access"


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (_dropped, {"lost"}),
        (_doubled, {"duplicate"}),
        (_reordered, {"out_of_order"}),
        (_delivered_after_the_revoke, {"uninvited"}),
        (_delivered_to_the_other_tenant, {"wrong_tenant"}),
        (_wrong_snapshot, {"wrong_snapshot"}),
        (_without_resync, {"lost"}),
    ],
)
def test_a_spoiled_recording_of_it_is_noticed(
    outcome: Outcome, spoil: Callable[[Recording], None], found: set[str]
):
    recording = copy.deepcopy(outcome.recording)
    spoil(recording)
    assert found <= {violation.kind for violation in check(recording, outcome.world).violations}


def test_every_connection_can_be_read_to_its_end(outcome: Outcome):
    for connection in outcome.recording.connections:
        complaints: list[str] = []
        reader = Reader(connection, lambda kind, what, found=complaints: found.append(f"{kind} {what}"))
        reader.read()
        assert complaints == []
