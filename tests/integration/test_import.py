"""Large imports: a line is a document; what was cut off goes on, and nothing is written twice."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from uuid import UUID, uuid4

import httpx
import pytest


@pytest.fixture
def service(api):
    return api.service()


@pytest.fixture
def notes(mongo, deployment):
    return mongo[deployment.databases["acme"]]["notes"]


def ndjson(*items):
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


async def send(who, body, *, first=None, **headers):
    query = "" if first is None else f"?first={first}"
    return await who.post(
        f"/v1/docs/notes:import{query}", body, **{"Content_Type": "application/x-ndjson", **headers}
    )


async def test_each_line_is_a_document_and_a_bad_one_is_named(service, notes):
    good = [str(uuid4()) for _ in range(3)]
    lines = [
        json.dumps({"uuid": good[0], "document": {"n": 0}, "grants": [{"subject": "user:bob", "role": "reader"}]}),
        "",
        "{nonsense",
        json.dumps({"uuid": "x", "document": {}}),
        json.dumps({"uuid": good[1], "document": {"$n": 1}}),
        json.dumps({"uuid": good[2], "document": {"n": {"$numberLong": "9007199254740993"}}}),
    ]
    # The last line needs no end.
    answer = await send(service, "\n".join(lines).encode())
    assert answer.status == 200
    assert (answer.json["lines"], answer.json["succeeded"], answer.json["failed"]) == (6, 3, 3)
    named = [(error["line"], error["code"]) for error in answer.json["errors"]]
    assert named == [(2, "invalid_json"), (3, "invalid_uuid"), (4, "invalid_field")]
    assert await notes.count_documents({"_id": {"$in": [UUID(uuid) for uuid in good]}}) == 2


async def test_lines_may_end_as_on_windows_and_begin_with_a_byte_order_mark(service, notes):
    mark = str(uuid4())
    lines = [json.dumps({"document": {"mark": mark, "n": n}}).encode() for n in range(3)]
    answer = await send(service, b"\xef\xbb\xbf" + b"\r\n".join([*lines, b"", b""]))
    assert (answer.json["lines"], answer.json["succeeded"], answer.json["failed"]) == (4, 4, 0)
    assert sorted([found["n"] async for found in notes.find({"mark": mark})]) == [0, 1, 2]
    # It is a mark at the beginning of the whole, and nothing at all anywhere else.
    answer = await send(service, b"\xef\xbb\xbf" + lines[0], first=4)
    assert [(error["line"], error["code"]) for error in answer.json["errors"]] == [(4, "invalid_json")]


async def test_an_import_goes_on_where_it_was_and_lines_sent_twice_write_one_document(service, notes):
    key, mark = str(uuid4()), str(uuid4())
    lines = [{"document": {"mark": mark, "n": n}} for n in range(250)]
    position = await service.get("/v1/docs/notes:import", Idempotency_Key=key)
    assert position.json == {"lines": 0}
    await send(service, ndjson(*lines[:120]), Idempotency_Key=key)
    assert (await service.get("/v1/docs/notes:import", Idempotency_Key=key)).json == {"lines": 120}
    # As after a cut whose last answer was lost: some lines come again.
    rest = await send(service, ndjson(*lines[100:]), first=100, Idempotency_Key=key)
    assert (rest.json["lines"], rest.json["succeeded"]) == (250, 150)
    numbers = [found["n"] async for found in notes.find({"mark": mark})]
    assert sorted(numbers) == list(range(250))
    assert (await service.get("/v1/docs/notes:import", Idempotency_Key=key)).json == {"lines": 250}


async def test_what_is_no_import_is_refused(api, service):
    assert (await send(service, b"{}", Content_Type="application/json")).code == "unsupported_media_type"
    assert (await send(service, b"{}", first="x")).code == "bad_request"
    assert (await service.get("/v1/docs/notes:import")).code == "bad_request"
    assert (await send(api.anybody(), b"{}")).code == "unauthenticated"
    key = str(uuid4())
    await send(service, b"\n", Idempotency_Key=key)
    assert (await service.get("/v1/docs/test:import", Idempotency_Key=key)).code == "idempotency_key_reused"


async def test_a_key_of_another_request_imports_nothing(service, notes):
    key, mark = str(uuid4()), str(uuid4())
    await service.post("/v1/docs/notes", {"mark": mark}, Idempotency_Key=key)
    refused = await send(service, ndjson({"document": {"mark": mark}}), Idempotency_Key=key)
    assert (refused.status, refused.code) == (422, "idempotency_key_reused")
    assert await notes.count_documents({"mark": mark}) == 1


async def test_a_line_without_an_end_is_not_gathered_for_ever(start_api):
    service = (await start_api(max_document_bytes=1024)).service()
    answer = await send(service, b'{"document": {"a": "' + b"x" * 500_000)
    assert (answer.status, answer.code) == (413, "document_too_large")


def resident(pid):
    with open(f"/proc/{pid}/status") as status:  # noqa: PTH123 - not a file of ours
        [line] = [line for line in status if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


async def test_the_memory_of_a_server_does_not_grow_with_an_import(start_server):
    # With a small history: the events of what is written are in it, within its own bound.
    server = start_server(history_bytes=2**20)
    line = ndjson({"document": {"text": "x" * 20_000}})
    most = 0

    async def body():
        nonlocal most
        for _ in range(40):
            most = max(most, resident(server.pid))
            yield line * 50

    headers = {"Authorization": f"Bearer {server.token('acme-service')}", "Content-Type": "application/x-ndjson"}
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as client:
        before = resident(server.pid)
        answer = await client.post("/v1/docs/notes:import", content=body(), headers=headers)
    assert answer.json()["succeeded"] == 2000
    # 40 MB went through.
    assert most - before < 30 * 2**20, (before, most)


def livedocs(server, *arguments):
    outside = {name: value for name, value in os.environ.items() if not name.startswith("LIVEDOCS_")}
    return subprocess.run(
        [sys.executable, "-m", "livedocs", "import", *arguments, "--url", server.url],
        env={**outside, "LIVEDOCS_TOKEN": server.token("acme-service"), "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_a_file_is_imported_from_the_command_line_once_however_often(server, notes, tmp_path):
    mark, file = str(uuid4()), tmp_path / "notes.ndjson"
    file.write_bytes(ndjson(*({"mark": mark, "n": n} for n in range(230))))
    for told in ("230 lines done, 0 refused", "nothing is left to do"):
        done = await asyncio.to_thread(livedocs, server, "notes", str(file), "--grant", "group:staff=reader")
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, told), done.stderr
    assert await notes.count_documents({"mark": mark}) == 230
    # Cut off somewhere, and more written to the end of it: the rest alone is sent.
    file.write_bytes(file.read_bytes() + ndjson({"mark": mark, "n": 230}, {"mark": mark, "$bad": 1}))
    done = await asyncio.to_thread(livedocs, server, "notes", str(file), "--key", "k" + mark)
    assert done.returncode == 1
    # A person's number of the line, and where in it.
    assert "line 232: invalid_field" in done.stderr
    assert "($bad)" in done.stderr


async def test_the_command_line_sends_a_file_as_it_is_to_the_last_digit(server, notes, tmp_path):
    mark, file = str(uuid4()), tmp_path / "notes.ndjson"
    numbers = [2**63 - 1, 2**64, 1e19]
    lines = [f'{{"mark":"{mark}","n":{number}}}'.encode() for number in numbers]
    file.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    done = await asyncio.to_thread(livedocs, server, "notes", str(file))
    assert done.returncode == 1
    assert "line 2: invalid_document" in done.stderr
    assert {found["n"] async for found in notes.find({"mark": mark})} == {2**63 - 1, 1e19}


async def test_an_import_that_is_killed_goes_on_and_every_line_is_written_once(server, notes, tmp_path):
    mark, file, count = str(uuid4()), tmp_path / "notes.ndjson", 6000
    file.write_bytes(ndjson(*({"mark": mark, "n": n, "text": "x" * 500} for n in range(count))))
    token, key = server.token("acme-service"), "k" + mark
    outside = {name: value for name, value in os.environ.items() if not name.startswith("LIVEDOCS_")}
    killed = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "livedocs", "import", "notes", str(file), "--key", key, "--url", server.url),
        env={**outside, "LIVEDOCS_TOKEN": token, "NO_PROXY": "*"},
        stdout=subprocess.DEVNULL,
    )
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
    async with (
        httpx.AsyncClient(base_url=server.url, trust_env=False, headers=headers) as client,
        asyncio.timeout(60),
    ):
        while not (done := (await client.get("/v1/docs/notes:import")).json()["lines"]):
            assert killed.returncode is None
            await asyncio.sleep(0.01)
    killed.kill()
    await killed.wait()
    assert done < count
    again = await asyncio.to_thread(livedocs, server, "notes", str(file), "--key", key)
    assert again.stdout.splitlines()[-1] == f"{count} lines done, 0 refused"
    numbers = [found["n"] async for found in notes.find({"mark": mark}, {"n": 1})]
    assert sorted(numbers) == list(range(count))
