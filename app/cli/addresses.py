"""Which addresses are public: all but those of IANA's special-purpose registries, in every spelling.

Sources: https://www.iana.org/assignments/iana-ipv4-special-registry, iana-ipv6-special-registry and
ipv6-unicast-address-assignments (2025). Python's `is_global` follows the registries of the day when Python was made.
"""

from __future__ import annotations

import ipaddress
import re

NOT_PUBLIC_4 = [
    ipaddress.IPv4Network(each)
    for each in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private use
        "100.64.0.0/10",  # shared with a carrier
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local; clouds keep their credentials there
        "172.16.0.0/12",  # private use
        "192.0.0.0/24",  # protocols; its two anycast addresses reach the nearest NAT
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "192.168.0.0/16",  # private use
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
]
UNICAST_6 = ipaddress.IPv6Network("2000::/3")
"""All that IANA gives out for IPv6; loopback, private, link-local and mapped addresses are outside."""

NOT_PUBLIC_6 = [
    ipaddress.IPv6Network(each)
    for each in (
        "2001::/23",  # protocols, Teredo and ORCHID among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: where it leads is for its IPv4 address to say, and a relay to know
        "3fff::/20",  # documentation
    )
]
LEADING_TO_4 = [
    ipaddress.IPv6Network(each)
    for each in (
        "::ffff:0:0/96",  # IPv4-mapped
        "64:ff9b::/96",  # NAT64 (RFC 6052)
    )
]
"""IPv6 addresses that lead to the IPv4 address in their last 32 bits."""

LOCAL_NAMES = re.compile(
    r"(.*\.)?(localhost|localdomain|local|internal|intranet|lan|home\.arpa|ip6-localhost|ip6-loopback)"
)
"""Names that lead into the machine or its network by agreement (RFC 6761, 6762, 8375)."""

HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: Address) -> bool:
    """Return whether an address is one that anybody can reach."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_4)
    if address.scope_id:
        return False
    if any(address in network for network in LEADING_TO_4):
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address in UNICAST_6 and not any(address in network for network in NOT_PUBLIC_6)


def is_local_name(host: str) -> bool:
    """Return whether a host's name is one of the machine or its network."""
    return LOCAL_NAMES.fullmatch(host.rstrip(".").lower()) is not None


def literal(host: str) -> Address | None:
    """Return the address that a host of a URL spells out, None for a name.

    IPv4 addresses are read as systems read them: of one to four numbers, decimal, octal or hexadecimal.

    Raises:
        ValueError: it is neither an address nor a name.
    """
    if ":" in host:
        return ipaddress.IPv6Address(host)
    parts = host.lower().removesuffix(".").split(".")
    if re.fullmatch(r"\d+|0x[0-9a-f]*", parts[-1]):
        return _ipv4(parts)
    if not HOST_NAME.fullmatch(".".join(parts)):
        raise ValueError("not a name of a host")
    return None


def _ipv4(parts: list[str]) -> ipaddress.IPv4Address:
    """Read an address whose last number fills the bytes that are left."""
    numbers = [_number(part) for part in parts]
    *leading, last = numbers
    if len(numbers) > 4 or any(number > 255 for number in leading) or last >= 256 ** (4 - len(leading)):
        raise ValueError("not an address")
    packed = sum(number << 8 * (3 - place) for place, number in enumerate(leading)) + last
    return ipaddress.IPv4Address(packed)


def _number(text: str) -> int:
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") and len(text) > 1 else 10)
