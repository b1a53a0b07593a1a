"""One file over https, from an allowed host at a public address; nothing else is ever connected to.

urllib3 speaks HTTP and TLS. The address that was checked is the one that is connected to, so a name that resolves differently the next
time leads nowhere else; the certificate must still be the host's. Redirects are checked like the first URL. Proxies are not used.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urljoin, urlsplit

from foveate.errors import DataError, FoveateError

if TYPE_CHECKING:
    from urllib3.connection import HTTPSConnection
    from urllib3.response import BaseHTTPResponse

PORT = 443
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that may be gone at the next attempt
_ATTEMPTS = 3
_PAUSE_S = 0.5
_CHUNK = 1 << 16
_RELAYS = ipaddress.ip_network("192.88.99.0/24")  # 6to4 relays: public by number, leading anywhere
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a URL leads."""

    url: str
    host: str
    port: int
    path: str  # with the query


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, as the system knows them."""
    return list(dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet: not private, local, multicast or reserved, and no other one in disguise."""
    number = ipaddress.ip_address(address)
    if isinstance(number, ipaddress.IPv6Address):
        if number.scope_id is not None or number.sixtofour is not None or number.teredo is not None or number.is_site_local:
            return False
        if number.ipv4_mapped is not None:
            return is_public(str(number.ipv4_mapped))
        if number in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(number) & 0xFFFFFFFF)))
    elif number in _RELAYS:
        return False
    return number.is_global and not (number.is_multicast or number.is_reserved or number.is_unspecified or number.is_loopback)


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """What may be reached, and how far. `is_public`, `resolve` and `ca_certs` (a file of certificates) are the system's but in tests."""

    is_allowed: Callable[[str, int], bool]  # host, port
    max_bytes: int
    timeout_s: float
    is_public: Callable[[str], bool] = is_public
    resolve: Callable[[str, int], Sequence[str]] = resolve
    ca_certs: str | None = None

    def target(self, url: str) -> Target:
        """DataError `media_url` unless it is an https URL of an allowed host."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port or PORT
        except ValueError as error:
            raise _refused(url, f"it is no URL: {error}", "mend it") from None
        if parts.scheme.lower() != "https":
            raise _refused(url, f"it is fetched over {parts.scheme}://, and only https is", "give its https address, or download it")
        if not url.isascii() or any(mark <= " " for mark in url) or not all(0 < len(label) < 64 for label in host.split(".")):
            raise _refused(url, "it is no plain URL", "write it in ASCII: xn--... for the host, %XX elsewhere")
        if parts.username is not None or parts.password is not None:
            raise _refused(url, "it holds a password or a user's name", "remove it: data files are no place for secrets")
        if not self.is_allowed(host, port):
            named = host if port == PORT else f"{host}:{port}"
            raise _refused(url, f"{named} is not among the domains of `media.fetch`", f"add {named} to it, or download the file")
        return Target(url=url, host=host, port=port, path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""))

    def download(self, url: str, file: BinaryIO) -> tuple[str, int]:
        """Write what the URL holds; returns (SHA-256, bytes). DataError `media_url` where it may not go, `media_fetch` where it fails.

        Passing troubles are met with two more attempts; all of it within `timeout_s`.
        """
        deadline = time.monotonic() + self.timeout_s
        for attempt in range(_ATTEMPTS):
            file.seek(0)
            file.truncate()
            try:
                return self._once(url, file, deadline)
            except _Passing as trouble:
                left = deadline - time.monotonic()
                if attempt + 1 == _ATTEMPTS or left <= _PAUSE_S:
                    raise _failed(url, str(trouble)) from None
                time.sleep(_PAUSE_S)
        raise AssertionError("the last attempt returns or raises")

    def _once(self, url: str, file: BinaryIO, deadline: float) -> tuple[str, int]:
        start = url
        for _ in range(_MOST_REDIRECTS + 1):
            target = self.target(url)
            with self._response(target, deadline) as response:
                if response.status in _REDIRECTS and "location" in response.headers:
                    url = _joined(url, response.headers["location"])
                    continue
                if response.status in _PASSING:
                    raise _Passing(f"the server says {response.status}")
                if response.status != 200:
                    raise _failed(start, f"the server says {response.status}")
                found = self._body(start, response, file)
                if time.monotonic() >= deadline:  # cut off: without a stated length that looks like the end
                    raise self._late(start)
                return found
        raise _failed(start, f"more than {_MOST_REDIRECTS} redirects")

    def _body(self, url: str, response: BaseHTTPResponse, file: BinaryIO) -> tuple[str, int]:
        """Bounded while it is read: what the server says of the length is not relied on."""
        digest, size = hashlib.sha256(), 0
        while block := response.read1(_CHUNK, decode_content=False):
            size += len(block)
            if size > self.max_bytes:
                raise _failed(url, f"it has more than {self.max_bytes / 1_000_000:g} MB", "raise `media.fetch_max_mb`")
            digest.update(block)
            try:
                file.write(block)
            except OSError as error:  # the disk's, not the network's
                raise FoveateError(f"fetched media can't be kept: {error.strerror or error}", fix="free some space") from None
        return digest.hexdigest(), size

    def _addresses(self, target: Target) -> Sequence[str]:
        try:
            found = self.resolve(target.host, target.port)
        except (OSError, UnicodeError) as error:
            raise _Passing(f"{target.host} is not found: {error}") from None
        for address in found:
            if not self.is_public(address):
                raise _refused(target.url, f"{target.host} is at {address}, which is not public", "download the file, and give its path")
        return found

    @contextmanager
    def _response(self, target: Target, deadline: float) -> Iterator[BaseHTTPResponse]:
        """The answer, its body still to be read. Whatever takes longer than the deadline is cut off."""
        from urllib3.connection import HTTPSConnection
        from urllib3.exceptions import HTTPError
        from urllib3.util.ssl_match_hostname import CertificateError

        address = self._addresses(target)[0]
        left = max(0.001, deadline - time.monotonic())
        connection = HTTPSConnection(
            address, target.port, timeout=left, server_hostname=target.host, assert_hostname=target.host, cert_reqs="CERT_REQUIRED",
            ca_certs=self.ca_certs,
        )  # fmt: skip
        host = target.host if target.port == PORT else f"{target.host}:{target.port}"
        headers = {"Host": host, "User-Agent": "foveate", "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}
        # A timeout of the socket begins anew with each byte; this one does not.
        with ExitStack() as closing:
            closing.callback(connection.close)
            watch = threading.Timer(left, _cut_off, (connection, sockets := []))
            closing.callback(watch.cancel)
            watch.daemon = True
            watch.start()
            try:
                connection.connect()
                sockets.append(connection.sock)  # once the answer begins, the connection forgets it
                connection.request("GET", target.path, headers=headers, preload_content=False, decode_content=False)
                response = connection.getresponse()
                closing.callback(response.close)
                yield response
            except CertificateError as error:
                raise _failed(target.url, _told(error)) from None
            except (HTTPError, HTTPException, OSError) as error:
                raise self._late(target.url) if time.monotonic() >= deadline else _Passing(_told(error)) from None

    def _late(self, url: str) -> DataError:
        return _failed(url, f"it takes longer than {self.timeout_s:g} s", "raise `media.fetch_timeout_s`")


class _Passing(Exception):
    """A trouble that another attempt may not meet."""


def _cut_off(connection: HTTPSConnection, sockets: list[socket.socket]) -> None:
    held = sockets[0] if sockets else connection.sock
    if held is not None:
        try:
            # The plain socket's: that of TLS would first say goodbye, and wait for an answer.
            socket.socket.shutdown(held, socket.SHUT_RDWR)
        except OSError:  # closed already
            return


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise _failed(url, f"it leads to what is no URL: {error}") from None


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _refused(url: str, problem: str, fix: str) -> DataError:
    return DataError(problem, reason="media_url", where=url[:200], fix=fix)


def _failed(url: str, problem: str, fix: str = "look at the URL; `foveate check` tries again") -> DataError:
    return DataError(f"it can't be fetched: {problem}", reason="media_fetch", where=url[:200], fix=fix)
