"""Redirects that may be followed: never insecure, never into private networks."""

from __future__ import annotations

import ipaddress
import socket
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any

MOST_REDIRECTS = 8
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def redirect_fault(source: str, target: str) -> str:
    """Why a redirection is not followed; empty where it may be.

    Args:
        source: The URL that was asked for first.
        target: Where a server sends it on to, as an absolute URL.
    """
    try:
        first, then = urllib.parse.urlsplit(source), urllib.parse.urlsplit(target)
        host = then.hostname or ""
        _ = then.port
    except ValueError:
        return "is not an address"
    if then.scheme not in ("http", "https") or not host:
        return "is not a web address"
    if then.username is not None or then.password is not None:
        return "has a user's name in it"
    if host == first.hostname:
        return "is not encrypted any more" if first.scheme == "https" and then.scheme != "https" else ""
    if then.scheme != "https":
        return "is another host, and not encrypted"
    addresses = _addresses(host)
    if not addresses and not urllib.request.getproxies():
        return "is a host that cannot be found"
    return _address_fault(addresses, first.hostname or "")


def peer_fault(source: str, response: Any) -> str:
    """Why the answering server's address is refused; empty where it may be.

    Args:
        source: The URL that was asked for first.
        response: The answer, of httpx.
    """
    stream = getattr(response, "extensions", {}).get("network_stream")
    peer = stream.get_extra_info("server_addr") if stream is not None else None
    if not isinstance(peer, tuple) or urllib.request.getproxies():
        return ""
    return _address_fault([_plain(ipaddress.ip_address(str(peer[0]).partition("%")[0]))], _host(source))


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).hostname or ""


def _address_fault(addresses: Sequence[_Address], first: str) -> str:
    if any(address.is_link_local or address.is_unspecified or address.is_multicast for address in addresses):
        return "lies at a link-local address"
    if any(not address.is_global for address in addresses) and all(address.is_global for address in _addresses(first)):
        return "lies in a private network"
    return ""


def _addresses(host: str) -> list[_Address]:
    """Addresses of a host; behind a proxy only literal ones."""
    try:
        # Also what is no dotted quad, but taken for one: 2130706433, 0x7f.1.
        numeric = socket.AI_NUMERICHOST if urllib.request.getproxies() else 0
        name = host.partition("%")[0]  # without the zone of an address
        texts = {str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=numeric)}
    except (OSError, UnicodeError):
        texts = {"127.0.0.1"} if host == "localhost" or host.endswith(".localhost") else set()
    return [_plain(ipaddress.ip_address(text.partition("%")[0])) for text in texts]


def _plain(address: _Address) -> _Address:
    """The IPv4 address behind an IPv6 address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def same_origin(first: str, second: str) -> bool:
    """Same scheme, host and port."""
    return _origin(first) == _origin(second)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
