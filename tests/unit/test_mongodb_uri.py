"""What a connection string may decide: nothing that a guarantee rests on."""

from __future__ import annotations

import pytest
from pymongo import ReadPreference

from livedocs import config, mongodb_uri
from livedocs.cli.doctor import connection_finding
from livedocs.store.connection import connect, connect_blocking, connect_raw

WEAKENING = [
    "readPreference=secondaryPreferred",
    "readPreference=secondary&readPreferenceTags=dc:east&readPreferenceTags=",
    "readpreference=nearest&maxStalenessSeconds=90",
    "w=0",
    "w=1&journal=false",
    "wTimeoutMS=1",
    "readConcernLevel=local",
    "readConcernLevel=available",
    "retryWrites=false",
    "retryReads=false",
    "directConnection=true",
]
NEEDED = {
    "LIVEDOCS_PUBLIC_URL": "http://localhost:8000",
    "LIVEDOCS_OAUTH_ISSUER": "http://localhost:8001",
    "LIVEDOCS_OAUTH_CLIENT_ID": "x",
    "LIVEDOCS_OAUTH_CLIENT_SECRET": "x",
    "LIVEDOCS_OAUTH_AUDIENCE": "x",
}


def settings(uri):
    return config.load({**NEEDED, "LIVEDOCS_MONGODB_URI": uri})


@pytest.mark.parametrize("options", WEAKENING)
@pytest.mark.parametrize("opened", [connect, connect_raw, connect_blocking])
async def test_what_would_weaken_a_guarantee_does_not_reach_the_driver(options, opened):
    client = opened(settings(f"mongodb://127.0.0.1:1/?{options}&maxPoolSize=7"))
    try:
        assert client.read_preference == ReadPreference.PRIMARY
        assert client.write_concern.document == {"w": "majority"}
        assert client.read_concern.level == "majority"
        assert (client.options.retry_writes, client.options.retry_reads) == (True, True)
        assert client.options.direct_connection is False
        assert client.options.pool_options.max_pool_size == 7
    finally:
        closing = client.close()
        if closing is not None:
            await closing


@pytest.mark.parametrize("options", WEAKENING)
def test_doctor_names_what_is_ignored_and_nothing_else(options):
    finding = connection_finding(f"mongodb://alice:s3cret@127.0.0.1:1/?authSource=admin&{options}")
    assert finding.advice
    assert options.split("&")[0] in finding.what
    assert "s3cret" not in str(finding)
    assert "authSource" not in str(finding)
    assert not connection_finding("mongodb://127.0.0.1:1/?authSource=admin&replicaSet=rs0").advice


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("mongodb://h/?tlsInsecure=true", "tlsInsecure"),
        ("mongodb://h/?tls=true&tlsAllowInvalidCertificates=true", "tlsAllowInvalidCertificates"),
        ("mongodb://h/?TLSALLOWINVALIDHOSTNAMES=TRUE", "TLSALLOWINVALIDHOSTNAMES"),
        ("mongodb://h/?loadBalanced=true", "loadBalanced"),
        ("mongodb://alice:s3@cret@h/", "%40"),
        ("mongodb://alice:s3/cret@h/", "percent-encoded"),
        ("mongodb://h/?tls=true&tlsCAFile=/no/such/file.pem", "/no/such/file.pem"),
        ("mongodb://h:99999/", "Port"),
        ("h:27017", "must begin with"),
        ("", "must begin with"),
        ("mongodb+srv://alice:s3@cret@h/", "%40"),
    ],
)
def test_what_cannot_be_overridden_stops_the_start_by_name(uri, said):
    with pytest.raises(config.ConfigurationError) as caught:
        settings(uri)
    assert "LIVEDOCS_MONGODB_URI" in str(caught.value)
    assert said in str(caught.value)
    assert "s3" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://alice:s%403cret@a:1,b:2/x?replicaSet=rs0&tls=true&tlsInsecure=false",
        "mongodb+srv://alice@h.example/?authSource=%24external&authMechanism=MONGODB-X509",
        "mongodb://%2Ftmp%2Fmongodb.sock",
    ],
)
def test_the_rest_is_taken_as_it_is(uri):
    assert mongodb_uri.problem(uri) is None
    assert mongodb_uri.without_ignored(uri) == uri
