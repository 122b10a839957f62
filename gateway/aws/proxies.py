"""The proxy through which the store is asked, as the environment says it for all programs: HTTPS_PROXY, HTTP_PROXY, NO_PROXY.

The client library reads them too. It takes no notice of networks in NO_PROXY, and of what it does not understand it says
something only at the first request.
"""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

from botocore.httpsession import mask_proxy_url
from botocore.utils import get_environ_proxies

from gateway.config.schema import Config
from gateway.core.errors import ConfigError

_SCHEMES = ("http", "https")


def proxy_of(config: Config) -> str:
    """The proxy, without its password; empty if there is none.

    Raises:
        ConfigError: it cannot be used.
    """
    address = _address(config)
    scheme = urlsplit(address).scheme
    proxy = get_environ_proxies(address).get(scheme, "")
    if not proxy or is_in_network(config):
        return ""
    if (fault := _fault_of(proxy)) is not None:
        raise ConfigError([f"{scheme.upper()}_PROXY {fault}"])
    return str(mask_proxy_url(_with_scheme(proxy)))


def is_in_network(config: Config) -> bool:
    """Whether the store's address is one of a network that NO_PROXY names, as `10.0.0.0/8`."""
    try:
        host = ipaddress.ip_address(urlsplit(_address(config)).hostname or "")
    except ValueError:
        # A name: what it stands for is asked by the proxy.
        return False
    named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    return any(host in network for network in map(_network, named.replace(" ", "").split(",")) if network is not None)


def _address(config: Config) -> str:
    return config.aws.endpoint or f"https://s3.{config.aws.region}.amazonaws.com"


def _network(named: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    if "/" not in named:
        return None
    try:
        return ipaddress.ip_network(named, strict=False)
    except ValueError:
        return None


def _with_scheme(proxy: str) -> str:
    """As the client library completes it; without a scheme a password would not be found to be one."""
    return proxy if "://" in proxy else f"http://{proxy}"


def _fault_of(proxy: str) -> str | None:
    """What is wrong with an address, None if nothing is."""
    shown = "it cannot be read"
    given = _with_scheme(proxy)
    try:
        shown = mask_proxy_url(given)
        parts = urlsplit(given)
        has_port = parts.port is not None or parts.netloc.rpartition("@")[2].count(":") == 0
    except ValueError:
        return f"is no address of a proxy ({shown}): it has to be one such as http://proxy.example.com:3128"
    if parts.scheme.startswith("socks"):
        return f"names a SOCKS proxy ({shown}), which is not supported: give the address of an HTTP proxy, or put one before it"
    if parts.scheme not in _SCHEMES or not parts.hostname or not has_port:
        return f"is no address of a proxy ({shown}): it has to be one such as http://proxy.example.com:3128"
    return None
