"""TLS of the listener: its certificate, and another one for new connections while it runs."""

from __future__ import annotations

import ssl

from gateway.config.schema import ListenKeys
from gateway.core.errors import ConfigError

# Forward secrecy and authenticated encryption alone: no CBC. Those of TLS 1.3 are all so, and not named here.
_TLS_1_2_CIPHERS = "@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20"


def server_context(listen: ListenKeys) -> ssl.SSLContext | None:
    """The TLS side of the listener, None where it speaks plain HTTP; ConfigError if the files cannot be used."""
    if listen.tls_certificate is None or listen.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # Not left to the interpreter and the distribution, whose floors differ.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS_1_2_CIPHERS)
    try:
        # An encrypted key is a fault; without a password of ours OpenSSL would ask for one on the terminal.
        context.load_cert_chain(listen.tls_certificate, listen.tls_key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            [f"listen.tls_certificate: {listen.tls_certificate} and {listen.tls_key} are no certificate and its key ({error})"]
        ) from error
    return context


def renew(context: ssl.SSLContext, listen: ListenKeys) -> None:
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
