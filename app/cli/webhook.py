"""One JSON POST when a run has ended: `tessera run --webhook URL --track-id ID`."""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ...host.errors import GraphError, one_line, shown, without_secrets
from .addresses import Address, is_local_name, is_public, literal

TIMEOUT = 9.0
"""Seconds to connect, and to wait for each part of an answer."""

DEADLINE = 45.0
"""Seconds for the whole report, retries included: a receiver may answer a byte at a time."""

PAUSES = (1.0, 2.0, 4.0)
"""Seconds before each retry."""

RETRIED_STATUSES = {408, 425, 429}
"""Retried besides 5xx: request timeout, too early, too many requests (RFC 9110, 8470, 6585)."""

PORTS = {"http": 80, "https": 443}


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
        host = self._parts().hostname or ""
        address = literal(host)
        if address is not None:
            self._allow(address)
        elif is_local_name(host) and not self.private:
            raise GraphError([self._refusal(host)])

    def send(self, report: dict[str, Any], pause: Callable[[float], None] = time.sleep) -> str:
        """POST a report, retried up to 3 times on connection errors, 408, 425, 429 and 5xx; redirects are not followed.

        Args:
            report: what JSON can hold; `track_id` is added.
            pause: waits the given seconds between attempts.

        Returns:
            What went wrong, in one line; "" when it arrived.
        """
        body = json.dumps({"track_id": self.track_id, **report}).encode()
        told: list[str] = []
        # Looking up a name cannot be given a limit, nor can an answer that never ends; a thread can be left behind.
        sending = threading.Thread(target=lambda: told.append(self._attempts(body, pause)), daemon=True)
        sending.start()
        sending.join(DEADLINE)
        return one_line(told[0]) if told else f"--webhook {self._shown}: gave up after {DEADLINE:g} seconds"

    def _attempts(self, body: bytes, pause: Callable[[float], None]) -> str:
        wrong = ""
        for wait in (*PAUSES, None):
            try:
                status = self._post(body)
            except GraphError as error:
                return error.lines[0]
            except (OSError, ValueError, http.client.HTTPException) as error:
                wrong = f"--webhook {self._shown}: {error or type(error).__name__}"
            else:
                if 200 <= status < 300:
                    return ""
                wrong = f"--webhook {self._shown}: answered {status}"
                if status < 500 and status not in RETRIED_STATUSES:
                    return wrong
            if wait is not None:
                pause(wait)
        return f"{wrong}; gave up after {len(PAUSES) + 1} attempts"

    @property
    def _shown(self) -> str:
        return shown(without_secrets(self.url))

    def _parts(self) -> SplitResult:
        try:
            parts = urlsplit(self.url)
            if parts.scheme in PORTS and parts.hostname and parts.port != 0 and re.fullmatch(r"[!-\[\]-~]+", self.url):
                literal(parts.hostname)
                return parts
        except ValueError:
            pass
        raise GraphError([f"--webhook {self._shown}: expected a URL, such as https://example.com/done"])

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
        spelled = literal(host)
        if spelled is not None:
            host = str(spelled)  # Systems do not agree on what the other spellings mean.
        found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        for address in found:
            self._allow(ipaddress.ip_address(address))
        return found[0]

    def _allow(self, address: Address) -> None:
        if not self.private and not is_public(address):
            raise GraphError([self._refusal(str(address))])

    def _refusal(self, address: str) -> str:
        return (
            f"--webhook {self._shown}: {one_line(address)} is not a public address; "
            "add --webhook-private to report inside a network"
        )


def _connection(scheme: str, host: str, port: int, address: str) -> http.client.HTTPConnection:
    """Connect to the very address that was checked: a second look-up could return another."""
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=TIMEOUT)
    connected = socket.create_connection((address, port), TIMEOUT)
    if scheme == "https":
        connected = ssl.create_default_context().wrap_socket(connected, server_hostname=host)
    connection.sock = connected
    return connection
