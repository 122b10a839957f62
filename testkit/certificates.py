"""Certificates for `localhost`, signed by themselves, good for nothing but tests."""

from __future__ import annotations

from pathlib import Path

KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgIbBhspG60T6FwpR+
wNK4Bz4bvgeYYL1Z2gGKb2M4u/uhRANCAAQY9QV0d1QkO6oxKXoboatmIQzVzIc0
jDFu77itPloNXBPOSH8wgegNcI0hPo0EhW3zSvOLBk0o85fhih1YTjxy
-----END PRIVATE KEY-----
"""
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBmjCCAUGgAwIBAgIUWpIQvKavPoTWuSf4gmtZQpzxw3owCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTE1MjQ1OFoYDzIxMjYxMDI4
MTUyNDU4WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQY9QV0d1QkO6oxKXoboatmIQzVzIc0jDFu77itPloNXBPOSH8wgegN
cI0hPo0EhW3zSvOLBk0o85fhih1YTjxyo28wbTAdBgNVHQ4EFgQUJQYgD6Hh5Ygy
3NADbOZOxoW93VswHwYDVR0jBBgwFoAUJQYgD6Hh5Ygy3NADbOZOxoW93VswDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDRwAwRAIgfeiDx7wjd4hdgYgHqYUMdwfUK76v6vCmhqNr48NBvyUCIHIt
COWCePwzKCJP3uUC3FNp9NL59ehYdiOa42XaT5ZQ
-----END CERTIFICATE-----
"""
OTHER_CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBmTCCAUGgAwIBAgIUPPvyE8351wpyevK5ZcGV1Zb6oHgwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEzMDEyNTg0N1oYDzIxMjYxMTA2
MTI1ODQ3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARKtxbG0GcaYfnf9qL4YTDD2Ve98SBwd1a3/hUQzZpAAqls7A6Cdd5W
F2SnxVManKDKDNRdMIIgK9m6Prw27RiDo28wbTAdBgNVHQ4EFgQUL7/95Nv12UE6
xgvwXQuQf6QC61AwHwYDVR0jBBgwFoAUL7/95Nv12UE6xgvwXQuQf6QC61AwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDRgAwQwIfYy+abwOu/blvCttoayIR7BpwRbRC0h2wcWnfK/bR7wIgGIFO
Es/Spd94NF6S0PM4PFoj44YitUxQoKbX/MvugGY=
-----END CERTIFICATE-----
"""
OTHER_KEY = """\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIKf48muel0qe5UIFVr3AoWM3RFxKvn2LQWY3vpe81BbJoAoGCCqGSM49
AwEHoUQDQgAESrcWxtBnGmH53/ai+GEww9lXvfEgcHdWt/4VEM2aQAKpbOwOgnXe
Vhdkp8VTGpygygzUXTCCICvZuj68Nu0Ygw==
-----END EC PRIVATE KEY-----
"""


def files(folder: Path, certificate: str = CERTIFICATE, key: str = KEY) -> tuple[Path, Path]:
    """Write a certificate and a key."""
    written = folder / "certificate.pem", folder / "key.pem"
    for path, text in zip(written, (certificate, key), strict=True):
        path.write_text(text)
    return written
