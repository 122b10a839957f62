"""Certificate authorities: which ones the gateway trusts when it calls others."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping

from gateway.core.errors import ConfigError


def ca_bundle(environ: Mapping[str, str] = os.environ) -> str | None:
    """The file of certificate authorities to trust, None for the one that comes with botocore.

    botocore knows `AWS_CA_BUNDLE` and its own file only, where users of other programs expect `SSL_CERT_FILE` or what the
    system trusts.

    Raises:
        ConfigError: a variable names what cannot be used; whom to trust is nothing to guess.
    """
    for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE"):
        if path := environ.get(name):
            check_bundle(name, path)
            return path
    candidates = [ssl.get_default_verify_paths().cafile, *_SYSTEM_BUNDLES]
    return next((path for path in candidates if path and os.path.isfile(path)), None)


def check_bundle(name: str, path: str) -> None:
    """Raise ConfigError, which begins with the name of what names it, if the file is none of certificates."""
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError([f"{name}: {path} is no file of certificates in PEM ({error})"]) from error


_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Red Hat, Amazon Linux
    "/etc/ssl/ca-bundle.pem",  # SUSE
)
