"""The proxy before the store is found as other programs find it, and one that cannot be used is said at the start."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.aws.proxies import is_in_network, proxy_of
from gateway.config.schema import AwsKeys, Config
from gateway.core.errors import ConfigError


def config(endpoint: str = "") -> Config:
    """A configuration with this endpoint."""
    return replace(Config(), aws=replace(AwsKeys(), region="eu-west-1", endpoint=endpoint))


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("endpoint", "environment", "expected"),
    [
        ("", {}, ""),
        ("", {"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ("", {"https_proxy": "proxy:3128"}, "http://proxy:3128"),
        ("", {"https_proxy": "me:secret@proxy:3128"}, "http://***:***@proxy:3128"),
        ("", {"HTTPS_PROXY": "http://me:secret@proxy:3128"}, "http://***:***@proxy:3128"),
        ("", {"HTTP_PROXY": "http://proxy:3128"}, ""),
        ("http://10.1.2.3:9000", {"HTTP_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ("http://10.1.2.3:9000", {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "10.1.2.3"}, ""),
        ("http://10.1.2.3:9000", {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "a, 10.0.0.0/8 ,b"}, ""),
        ("http://10.1.2.3:9000", {"HTTP_PROXY": "http://proxy:3128", "no_proxy": "10.2.0.0/16,nonsense/9"}, "http://proxy:3128"),
        ("http://[fd00::1]:9000", {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "fd00::/8"}, ""),
        ("http://s3.example.com", {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": ".example.com"}, ""),
    ],
)
def test_the_environment_names_it(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, environment: dict[str, str], expected: str
) -> None:
    """By the scheme of the store's address; names and networks of NO_PROXY are asked without it."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(config(endpoint)) == expected


@pytest.mark.parametrize(
    ("proxy", "says"),
    [
        ("socks5://proxy:1080", "names a SOCKS proxy"),
        ("socks5h://proxy:1080", "names a SOCKS proxy"),
        ("ftp://proxy:21", "no address of a proxy"),
        ("http://proxy:port", "no address of a proxy"),
        ("http://:3128", "no address of a proxy"),
        ("http://[", "no address of a proxy"),
        ("http://proxy:99999999", "no address of a proxy"),
    ],
)
def test_one_that_cannot_be_used_is_a_fault_of_the_configuration(monkeypatch: pytest.MonkeyPatch, proxy: str, says: str) -> None:
    """It names the variable, and what would be right."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ConfigError, match=f"^HTTPS_PROXY {says}|^HTTPS_PROXY is {says}"):
        proxy_of(config())


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in a fault, either."""
    monkeypatch.setenv("HTTPS_PROXY", "socks5://me:secret@proxy:1080")
    with pytest.raises(ConfigError) as raised:
        proxy_of(config())
    assert "secret" not in str(raised.value)


def test_the_library_is_kept_from_a_proxy_by_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows names only."""
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")
    assert is_in_network(config("http://10.1.2.3:9000"))
    assert not is_in_network(config("http://11.1.2.3:9000"))
    assert not is_in_network(config("http://s3.example.com"))
