"""One JSON POST when a run has ended: `tessera run --webhook URL --track-id ID`."""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ...host.errors import GraphError, shown

TIMEOUT = 10.0
"""Seconds to connect, and to wait for each part of an answer."""

PAUSES = (1.0, 2.0, 4.0)
"""Seconds before each retry."""

RETRIED_STATUSES = {408, 425, 429}
"""Retried besides 5xx: request timeout, too early, too many requests (RFC 9110, 8470, 6585)."""

PORTS = {"http": 80, "https": 443}

NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses that lead to IPv4 ones (RFC 6052)."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Webhook:
    """The receiver of a run's report.

    Attributes:
        url: http or https.
        track_id: copied into the report.
        private: whether addresses that are not public are allowed.
    """

    url: str
    track_id: str | None = None
    private: bool = False

    def check(self) -> None:
        """Check the URL before the run begins; a host name is resolved only when the report is sent.

        Raises:
            GraphError: it is not an http or https URL, or contains an address that is not public.
        """
        parts = self._parts()
        try:
            self._allow(ipaddress.ip_address(parts.hostname or ""))
        except ValueError:
            if (parts.hostname or "").rstrip(".").lower() == "localhost" and not self.private:
                raise GraphError([self._refusal("localhost")]) from None

    def send(self, report: dict[str, Any], pause: Callable[[float], None] = time.sleep) -> str:
        """POST a report, retried up to 3 times on connection errors, 408, 425, 429 and 5xx; redirects are not followed.

        Args:
            report: what JSON can hold; `track_id` is added.
            pause: waits the given seconds between attempts.

        Returns:
            What went wrong, in one line; "" when it arrived.
        """
        body = json.dumps({"track_id": self.track_id, **report}).encode()
        wrong = ""
        for wait in (*PAUSES, None):
            try:
                status = self._post(body)
            except GraphError as error:
                return error.lines[0]
            except (OSError, UnicodeError, http.client.HTTPException) as error:
                wrong = f"--webhook {shown(self.url)}: {error or type(error).__name__}"
            else:
                if 200 <= status < 300:
                    return ""
                wrong = f"--webhook {shown(self.url)}: answered {status}"
                if status < 500 and status not in RETRIED_STATUSES:
                    return wrong
            if wait is not None:
                pause(wait)
        return f"{wrong}; gave up after {len(PAUSES) + 1} attempts"

    def _parts(self) -> SplitResult:
        try:
            parts = urlsplit(self.url)
            if parts.scheme in PORTS and parts.hostname and parts.port != 0 and re.fullmatch("[!-~]+", self.url):
                return parts
        except ValueError:
            pass
        raise GraphError([f"--webhook {shown(self.url)}: expected a URL, such as https://example.com/done"])

    def _post(self, body: bytes) -> int:
        parts = self._parts()
        port = parts.port or PORTS[parts.scheme]
        host = parts.hostname or ""
        address = self._address(host, port)
        connection = _connection(parts.scheme, host, port, address)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            return connection.getresponse().status
        finally:
            connection.close()

    def _address(self, host: str, port: int) -> str:
        """Return one address of the host, after checking that all of them are allowed."""
        found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        for address in found:
            self._allow(ipaddress.ip_address(address.partition("%")[0]))
        return found[0]

    def _allow(self, address: Address) -> None:
        reached = _reached(address)
        if not self.private and (not reached.is_global or reached.is_multicast):
            raise GraphError([self._refusal(str(address))])

    def _refusal(self, address: str) -> str:
        return (
            f"--webhook {shown(self.url)}: {address} is not a public address; "
            "add --webhook-private to report inside a network"
        )


def _reached(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one leads to, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _connection(scheme: str, host: str, port: int, address: str) -> http.client.HTTPConnection:
    """Connect to the very address that was checked: a second look-up could return another."""
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=TIMEOUT)
    connected = socket.create_connection((address, port), TIMEOUT)
    if scheme == "https":
        connected = ssl.create_default_context().wrap_socket(connected, server_hostname=host)
    connection.sock = connected
    return connection
