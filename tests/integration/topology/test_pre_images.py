"""Pre-images expire, once somebody has agreed to that: the parameter is the whole cluster's."""

from __future__ import annotations

import pytest

from .conftest import PASSWORDS


def expiry(topology):
    with topology.client("root") as client:
        reply = client.admin.command({"getClusterParameter": "changeStreamOptions"})
    return reply["clusterParameters"][0]["preAndPostImages"]["expireAfterSeconds"]


@pytest.fixture
def expire(topology):
    def put(seconds):
        options = {"preAndPostImages": {"expireAfterSeconds": seconds}}
        with topology.client("root") as client:
            client.admin.command({"setClusterParameter": {"changeStreamOptions": options}})

    put("off")
    yield put
    put("off")


def pre_images(done):
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("pre-images")]
    return line


def test_the_job_leaves_the_clusters_parameter_alone_without_consent(topology, expire):
    assert "set PRE_IMAGE_SECONDS" in pre_images(topology.prepare())
    assert expiry(topology) == "off"


def test_the_job_lets_pre_images_expire_with_consent(topology, expire):
    assert pre_images(topology.prepare(PRE_IMAGE_SECONDS="3600")) == "pre-images: expire after 3600 s"
    assert expiry(topology) == 3600


@pytest.mark.parametrize("wanted", ["60", "7200"])
def test_the_job_never_changes_what_somebody_has_set(topology, expire, wanted):
    expire(1800)
    assert f"PRE_IMAGE_SECONDS={wanted} changes nothing" in pre_images(topology.prepare(PRE_IMAGE_SECONDS=wanted))
    assert expiry(topology) == 1800


@pytest.mark.parametrize("wanted", ["soon", "0", "-5", "1.5"])
def test_the_job_refuses_what_is_no_time(topology, wanted):
    done = topology.prepare(PRE_IMAGE_SECONDS=wanted)
    assert done.returncode == 1
    assert done.stderr == "prepare: PRE_IMAGE_SECONDS is a whole number of seconds, such as 3600\n"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ("off", "problem  pre-images never expire by age"),
        (500, "problem  pre-images expire after 500 s, the history window is 300 s"),
        (3600, "ok       pre-images expire after 3,600 s, the history window is 300 s"),
    ],
)
def test_doctor_sees_with_the_servers_own_rights_how_long_pre_images_are_kept(migrated, expire, seconds, said):
    expire(seconds)
    done = migrated.livedocs("doctor")
    assert said in done.stdout, done.stdout + done.stderr


def test_doctor_says_what_to_do_where_it_may_not_look(migrated, topology):
    with topology.client("root") as client:
        client.admin.command("createUser", "blind", pwd=PASSWORDS["viewer"], roles=["readAnyDatabase"])
        try:
            uri = topology.uri("viewer").replace("viewer:", "blind:")
            done = migrated.livedocs("doctor", LIVEDOCS_MONGODB_URI=uri)
        finally:
            client.admin.command("dropUser", "blind")
    assert "problem  whether pre-images expire cannot be read" in done.stdout, done.stdout + done.stderr
    assert "getClusterParameter" in done.stdout
