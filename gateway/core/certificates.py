"""Certificates: whom the gateway trusts, and how it shows who it is itself."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping

from gateway.config.schema import Listen
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


# Forward secrecy and authenticated encryption alone: no CBC. Those of TLS 1.3 are all so, and not named here.
_TLS_1_2_CIPHERS = "@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20"


def server_context(listen: Listen) -> ssl.SSLContext | None:
    """The TLS side of the listener, None where it speaks plain HTTP; ConfigError if the files cannot be used."""
    if listen.tls_certificate is None or listen.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # Not left to the interpreter and the distribution, whose floors differ.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS_1_2_CIPHERS)
    try:
        # An encrypted key is a fault to be told; without a password of ours OpenSSL would ask for one on the terminal.
        context.load_cert_chain(listen.tls_certificate, listen.tls_key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            [f"listen.tls_certificate: {listen.tls_certificate} and {listen.tls_key} are no certificate and its key ({error})"]
        ) from error
    return context


def renew(context: ssl.SSLContext, listen: Listen) -> None:
    """Have new connections get the certificate that the files hold now.

    Connections that are there go on. The files are read into a context of their own, which each handshake then switches to:
    loaded into the one in use, a certificate without its key would be half of a change.

    Args:
        context: what `server_context` gave, in use.
        listen: the configuration it was made from.

    Raises:
        ConfigError: the files cannot be used; nothing has changed.
    """
    renewed = server_context(listen)

    def switch(connection: ssl.SSLObject, *_: object) -> None:
        if renewed is not None:
            connection.context = renewed

    context.sni_callback = switch
