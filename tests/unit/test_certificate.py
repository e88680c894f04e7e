"""ops/tls/certificate.py: the certificate for trying livedocs out on one machine."""

from __future__ import annotations

import importlib.util
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

SCRIPT = Path(__file__).parents[2] / "ops" / "tls" / "certificate.py"
NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("certificate", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pair_belongs_together_and_the_key_is_for_its_owner(script, tmp_path):
    assert script.ensure(tmp_path, ("localhost", "::1"), NOW)
    key = tmp_path / "key.pem"
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(tmp_path / "certificate.pem", key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_whoever_trusts_it_trusts_these_names_and_no_authority(script, tmp_path):
    script.ensure(tmp_path, ("localhost", "127.0.0.1"), NOW)
    made = x509.load_pem_x509_certificate((tmp_path / "certificate.pem").read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert made.not_valid_after_utc - NOW <= timedelta(days=398)


def test_a_pair_that_is_good_is_left_alone(script, tmp_path):
    script.ensure(tmp_path, ("localhost",), NOW)
    before = (tmp_path / "certificate.pem").read_bytes()
    assert not script.ensure(tmp_path, ("localhost",), NOW + script.LIFE - timedelta(days=8))
    assert (tmp_path / "certificate.pem").read_bytes() == before


@pytest.mark.parametrize(
    ("names", "later", "lost"),
    [
        (("localhost", "livedocs.test"), timedelta(0), None),
        (("localhost",), timedelta(days=359), None),
        (("localhost",), timedelta(0), "key.pem"),
    ],
    ids=["other names", "about to end", "no key"],
)
def test_a_pair_that_does_not_serve_is_made_anew(script, tmp_path, names, later, lost):
    script.ensure(tmp_path, ("localhost",), NOW)
    if lost:
        (tmp_path / lost).unlink()
    assert script.ensure(tmp_path, names, NOW + later)
    assert not script.ensure(tmp_path, names, NOW + later)
