"""Addresses: their parts, and those that no setting may lead to, which hand out a cloud's keys."""

import ipaddress
import re
import socket
import unicodedata
from urllib.parse import SplitResult, unquote, urlsplit

from graftline.errors import ConfigurationError

_NAMES = frozenset(
    (
        *("metadata", "metadata.google.internal", "metadata.goog", "metadata.azure.internal"),
        *("instance-data", "instance-data.ec2.internal", "metadata.tencentyun.com"),
        *("metadata.platformequinix.com", "rancher-metadata", "kubernetes-metadata"),
    )
)
_SERVICES = frozenset(
    map(ipaddress.ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16"))
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_ECHOES = (".nip.io", ".sslip.io", ".xip.io")  # names that resolve to the address in them
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def split_address(uri: str) -> SplitResult:
    """The parts of an address, as ``urllib.parse.urlsplit`` gives them.

    Raises:
        ConfigurationError: It cannot be divided: an open bracket, a port that is no number.
    """
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError as error:
        plain = re.sub(r"//[^/@]*@", "//***@", uri)[:100]
        raise ConfigurationError(
            f"{plain!r} is not an address",
            why=str(error),
            fix="Correct it. An IPv6 address stands in brackets: http://[::1]:5000.",
        ) from None
    return parts


def is_metadata_address(uri: str) -> bool:
    """Whether a URI names a metadata service, in any way of writing its address.

    Decimal, hexadecimal, octal and shortened IPv4, IPv6 that holds IPv4, full-width digits,
    percent-encoding, a trailing dot and names that stand for an address are seen through. What a
    name of one's own resolves to is not asked: see :func:`leads_to_metadata`.
    """
    try:
        host = urlsplit(uri.strip()).hostname or ""
    except ValueError:
        return False
    plain = unicodedata.normalize("NFKC", unquote(host)).strip().lower().rstrip(".")
    plain = plain.replace("\u3002", ".").replace("\uff61", ".").partition("%")[0]
    if plain in _NAMES:
        return True
    echo = next((end for end in _ECHOES if plain.endswith(end)), None)
    if echo is not None:
        inside = plain.removesuffix(echo).split(".")
        four = ".".join(inside[-4:])
        return any(_is_service(one) for one in (four, inside[-1].replace("-", ".")))
    return _is_service(plain)


def leads_to_metadata(uri: str) -> bool:
    """Whether a URI names a metadata service, or a name that resolves to one now.

    For whoever is about to send a request there. A name that does not resolve is left to them.
    """
    if is_metadata_address(uri):
        return True
    try:
        host = urlsplit(uri.strip()).hostname
        found = socket.getaddrinfo(host, None) if host else []
    except (ValueError, OSError):
        return False
    return any(_is_service(str(address[0]).partition("%")[0]) for *_, address in found)


def _is_service(host: str) -> bool:
    address = _address(host)
    if isinstance(address, ipaddress.IPv6Address):
        inside = address.ipv4_mapped or address.sixtofour
        if inside is None and (address in _NAT64 or int(address) < 2**32):
            inside = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inside is not None and int(inside) > 1:  # ::1 is this machine
            address = inside
    return address is not None and (address.is_link_local or address in _SERVICES)


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:  # 2852039166, 0xA9FEA9FE, 0251.0376.0251.0376 and 169.254.43518 are addresses to libc
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None
