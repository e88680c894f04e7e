"""What a MongoDB connection string may decide, and what not. Pure.

livedocs promises that a revocation that is confirmed is seen by whoever reads next, and that a write that is
answered stays. A connection string can take both away: by reads from a secondary that lags, by writes that one
server has.

Source: https://www.mongodb.com/docs/manual/reference/connection-string-options/
"""

from __future__ import annotations

from urllib.parse import unquote

from pymongo.errors import InvalidURI, PyMongoError
from pymongo.uri_parser import parse_uri

# In lower case. livedocs decides these by itself, whatever the connection string says.
_OURS = frozenset(
    (
        *("readpreference", "readpreferencetags", "maxstalenessseconds", "directconnection"),
        *("w", "wtimeout", "wtimeoutms", "j", "journal", "fsync"),
        *("readconcernlevel", "retryreads", "retrywrites"),
    )
)
# With these it does not start: without the option the connection would fail in a way that nobody understands.
_REFUSED = {
    "tlsinsecure": "set tlsCAFile to the authority that has signed the servers' certificates",
    "tlsallowinvalidcertificates": "set tlsCAFile to the authority that has signed the servers' certificates",
    "tlsallowinvalidhostnames": "name the servers as their certificates do",
    "loadbalanced": "name the servers of the replica set, or the routers",
}
_FALSE = frozenset({"false", "0", "no"})
_SRV, _PLAIN = "mongodb+srv://", "mongodb://"


def problem(uri: str) -> str | None:
    """What is wrong with a connection string, and what to do; None when nothing is. Never repeats the string."""
    scheme = next((scheme for scheme in (_PLAIN, _SRV) if uri.startswith(scheme)), None)
    if scheme is None:
        return f"must begin with {_PLAIN} or {_SRV}"
    if "@" in uri.removeprefix(scheme).partition("?")[0].rpartition("@")[0]:
        return "write @ in the user name or password as %40 (RFC 3986, 2.1)"
    for name, value in _options(uri):
        if name.lower() in _REFUSED and value.lower() not in _FALSE:
            return f"{name} is not taken, since it takes away what is promised: {_REFUSED[name.lower()]}"
    return _malformed(_PLAIN + uri.removeprefix(scheme))


def _malformed(uri: str) -> str | None:
    """What the driver would not take. The names behind a +srv are looked up when it is used."""
    try:
        parse_uri(uri, warn=False)
    except InvalidURI:
        return "is no connection string: write : / ? # [ ] @ and % in the user name or password percent-encoded"
    except OSError as error:
        return f"names a file that cannot be read: {error.filename}"
    except (PyMongoError, ValueError) as error:
        return f"is not taken: {error}"
    return None


def ignored(uri: str) -> list[str]:
    """The options that livedocs decides by itself, as the connection string has them."""
    return [f"{name}={value}" for name, value in _options(uri) if name.lower() in _OURS]


def without_ignored(uri: str) -> str:
    """The connection string without those."""
    head, mark, _ = uri.partition("?")
    kept = [f"{name}={value}" for name, value in _options(uri, decoded=False) if name.lower() not in _OURS]
    return head + mark + "&".join(kept)


def _options(uri: str, *, decoded: bool = True) -> list[tuple[str, str]]:
    query = uri.partition("?")[2]
    pairs = [option.partition("=") for option in query.replace(";", "&").split("&") if option]
    return [(name, unquote(value) if decoded else value) for name, _, value in pairs]
