from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import bson
import pytest
from bson.binary import Binary, UuidRepresentation
from hypothesis import given
from hypothesis import strategies as st

from livedocs.errors import InvalidSubject, InvalidUuid
from livedocs.model import (
    Grant,
    GrantKey,
    Role,
    Tenant,
    grant_document,
    grant_id,
    parse_grant,
    parse_grant_key,
    parse_subject,
    parse_uuid,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@given(st.uuids())
def test_a_uuid_is_read_in_either_case(uuid):
    assert parse_uuid(str(uuid)) == uuid
    assert parse_uuid(str(uuid).upper()) == uuid


@given(st.text() | st.none() | st.integers() | st.uuids())
def test_nothing_but_the_text_form_is_a_uuid(value):
    with contextlib.suppress(InvalidUuid):
        assert str(parse_uuid(value)) == value.lower()


@pytest.mark.parametrize("wrap", ["{%s}", " %s", "%s ", "%s\n", "urn:uuid:%s", "%s0", "0%s"])
def test_what_stands_around_a_uuid_makes_it_none(wrap):
    with pytest.raises(InvalidUuid):
        parse_uuid(wrap % uuid4())


@pytest.mark.parametrize("subject", ["user:a", "client:x/y", "group:ä b", "tenant:*", "user:" + "x" * 255])
def test_subjects_of_every_kind_are_read(subject):
    assert parse_subject(subject) == subject


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "alice",
        "user:",
        "User:a",
        "tenant:acme",
        "group:a\nb",
        "user:\0",
        "user:" + "x" * 256,
        None,
        5,
        {"$ne": 1},
    ],
)
def test_anything_else_is_no_subject(subject):
    with pytest.raises(InvalidSubject):
        parse_subject(subject)


def test_roles_include_the_ones_below_and_unknown_labels_are_none():
    assert Role.parse("owner") > Role.parse("writer") > Role.parse("reader")
    assert [Role.parse(label) for label in ("admin", "OWNER", "", None, 3, ["owner"])] == [None] * 6
    assert Role.OWNER.label == "owner"


def test_a_grant_counts_until_its_end_and_not_at_it():
    grant = Grant(GrantKey("acme", uuid4(), "user:a"), Role.READER, NOW)
    assert grant.in_force(NOW - timedelta(microseconds=1))
    assert not grant.in_force(NOW)
    assert Grant(grant.key, Role.READER).in_force(NOW)


@pytest.mark.parametrize("expires_at", [None, NOW])
def test_a_grant_survives_its_stored_form(expires_at):
    grant = Grant(GrantKey("acme", uuid4(), "group:staff"), Role.WRITER, expires_at, "user:b", NOW)
    options = bson.CodecOptions(tz_aware=True, uuid_representation=UuidRepresentation.STANDARD)
    stored = bson.decode(bson.encode(grant_document(grant), codec_options=options), codec_options=options)
    assert parse_grant(stored) == grant
    # Without UUID decoding, and without time zones, it is the same grant.
    assert parse_grant(grant_document(grant)) == grant
    assert parse_grant({**stored, "granted_at": NOW.replace(tzinfo=None)}) == grant


def test_the_keys_fields_have_one_order():
    assert list(grant_id(GrantKey("acme", uuid4(), "user:a"))) == ["tenant", "uuid", "subject"]


@pytest.mark.parametrize(
    "change",
    [
        {"role": "god"},
        {"role": None},
        {"expires_at": "soon"},
        {"_id": "x"},
        {"_id": {"tenant": "a"}},
        {"_id": None},
    ]
    + [{"_id": {"tenant": "a", "uuid": Binary(b"x" * 16, 3), "subject": "user:a"}}]
    + [{"_id": {"tenant": 1, "uuid": UUID(int=1), "subject": "user:a"}}],
)
def test_what_cannot_be_enforced_is_no_grant(change):
    grant = Grant(GrantKey("acme", uuid4(), "user:a"), Role.READER)
    assert parse_grant({**grant_document(grant), **change}) is None


def test_a_key_is_read_from_both_forms_of_its_uuid():
    key = GrantKey("acme", uuid4(), "user:a")
    assert parse_grant_key(grant_id(key)) == key
    assert parse_grant_key({**grant_id(key), "uuid": key.uuid}) == key


def test_a_confinement_holds_for_every_token_of_the_client_whoever_seems_to_be_behind_it():
    tenant = Tenant("acme", "livedocs_acme", {}, services={"crm": frozenset({"notes"}), "none": frozenset()})
    assert tenant.confines("client:crm", "crm") == {"notes"}
    assert tenant.confines("user:4b1c4f0e", "crm") == {"notes"}
    assert tenant.confines("user:crm", "livedocs") is None
    assert tenant.confines("client:crm", "") == {"notes"}
    assert tenant.confines("client:none", "crm") == frozenset()
    assert tenant.confines("user:alice", "none") == frozenset()
