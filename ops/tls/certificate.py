"""Make a self-signed certificate for trying livedocs out on one machine. Not for anything that others reach.

    python certificate.py FOLDER [NAME ...]

Writes `certificate.pem` and `key.pem` (mode 0600) into FOLDER for the names and addresses given, `localhost`,
`127.0.0.1` and `::1` without any. Leaves a pair alone that is good for a week more, so it is safe to repeat.
Browsers warn about it once; tell other clients to trust `certificate.pem`.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAMES = ("localhost", "127.0.0.1", "::1")
# Browsers refuse certificates that live longer than 398 days.
LIFE = timedelta(days=365)
_MARGIN = timedelta(days=7)


def ensure(folder: Path, names: Sequence[str], now: datetime) -> bool:
    """Make the pair unless it is there, for those names and long enough; whether it was made."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    alternatives = x509.SubjectAlternativeName([_name(name) for name in names])
    if key.exists() and certificate.exists() and _serves(certificate, alternatives, now):
        return False
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(key, pem, 0o600)
    _write(certificate, _certificate(private, alternatives, now).public_bytes(serialization.Encoding.PEM), 0o644)
    return True


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _serves(path: Path, alternatives: x509.SubjectAlternativeName, now: datetime) -> bool:
    found = x509.load_pem_x509_certificate(path.read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names == alternatives and found.not_valid_after_utc - now > _MARGIN


def _certificate(
    private: ec.EllipticCurvePrivateKey, alternatives: x509.SubjectAlternativeName, now: datetime
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "livedocs on this machine")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + LIFE)
        .add_extension(alternatives, critical=False)
        # Not an authority: somebody who trusts it trusts these names and no others.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    """Replace the file in one step, with its mode from the first byte on."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    draft.replace(path)


def main() -> int:
    """Run with this process's arguments."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder, names = Path(sys.argv[1]), sys.argv[2:] or NAMES
    made = ensure(folder, names, datetime.now(UTC))
    print(f"certificate for {', '.join(names)}: {'made' if made else 'there already'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
