"""Certificates: whom the gateway trusts, and how it shows who it is itself."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import ssl
from pathlib import Path

import pytest

from gateway.aws import trust
from gateway.aws.trust import ca_bundle
from gateway.config.schema import ListenKeys
from gateway.core.errors import ConfigError
from gateway.web.tls import renew, server_context
from testkit.certificates import CERTIFICATE, KEY, OTHER_CERTIFICATE, OTHER_KEY, files
from testkit.deadlines import until
from testkit.gateway_process import Gateway, clean_environment
from testkit.running import WAIT_S, LocalGateway, head, put, running


def trusting(certificate: Path) -> ssl.SSLContext:
    """The side of a client that trusts this certificate and nothing else."""
    return ssl.create_default_context(cafile=str(certificate))


# --- the gateway's own -------------------------------------------------------------------------------------------


def test_reports_come_in_by_https(tmp_path: Path) -> None:
    """With a certificate the gateway speaks HTTPS, in both lanes, and says so; the healthcheck knows how to ask."""
    certificate, key = files(tmp_path)
    settings = {"listen": {"tls_certificate": str(certificate), "tls_key": str(key)}}
    with running(tmp_path / "gateway", settings) as gateway:
        assert gateway.events("listening")[0]["address"].startswith("https://")
        with gateway.wire(tls=trusting(certificate)) as client:
            assert client.ask(put("/usage", b'{"n":1}')).status == 204
            assert client.ask(put("/usage", b'{"n":2}', "Connection: keep-alive")).status == 204
            assert client.ask(put("/usage", b'["%b"]' % (b"x" * 1_000_000))).status == 204
            assert client.ask(head("GET /health", user=None)).status == 200
        assert len(gateway.kept("usage")) == 3
        assert gateway.run("healthcheck", "-p", str(gateway.port), "--tls").returncode == 0
        assert gateway.run("healthcheck", "-p", str(gateway.port)).returncode == 1
        told = LocalGateway(tmp_path, environment={"LIGHTFILE6_LISTEN_TLS_CERTIFICATE": str(certificate)})
        assert told.run("healthcheck", "-p", str(gateway.port)).returncode == 0
        assert gateway.stop() == 0


def test_plain_http_to_https_is_no_way_in(tmp_path: Path) -> None:
    """Who speaks plain HTTP to a gateway with a certificate gets no answer, and the gateway goes on."""
    certificate, key = files(tmp_path)
    settings = {"listen": {"tls_certificate": str(certificate), "tls_key": str(key)}}
    with running(tmp_path / "gateway", settings) as gateway:
        with gateway.wire() as client:
            client.send(put("/usage", b"{}"))
            client.closed()
        assert gateway.kept("usage") == []
        with gateway.wire(tls=trusting(certificate)) as client:
            assert client.ask(put("/usage", b"{}")).status == 204


def test_plain_http_to_https_is_logged(tmp_path: Path) -> None:
    """Plain HTTP at the TLS port, and a client that does not trust the certificate, leave one line each, however often."""
    certificate, key = files(tmp_path)
    settings = {"listen": {"tls_certificate": str(certificate), "tls_key": str(key)}}
    with running(tmp_path / "gateway", settings) as gateway:
        for _ in range(3):
            with gateway.wire() as client:
                client.send(put("/usage", b"{}"))
                client.closed()
        with pytest.raises(ssl.SSLCertVerificationError), gateway.wire(tls=ssl.create_default_context()):
            pass
        until(lambda: len(gateway.events("TLS handshake failed")) == 2, "both kinds to be logged")
        plain, distrust = gateway.events("TLS handshake failed")
        assert (plain["kind"], plain["level"]) == ("http_request", "info")
        assert "https://" in plain["reason"]
        assert "alert" in distrust["kind"]
        # Who looks whether the port is open has not failed.
        socket.create_connection(("127.0.0.1", gateway.port)).close()
        assert gateway.stop() == 0
        assert len(gateway.events("TLS handshake failed")) == 2


@pytest.mark.parametrize("start", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["silence", "a piece"])
def test_a_handshake_that_stalls_is_ended(start: bytes, tmp_path: Path) -> None:
    """A client that opens a connection and does not speak TLS has the time of an idle one, and then no more."""
    certificate, key = files(tmp_path)
    settings = {
        "listen": {"tls_certificate": str(certificate), "tls_key": str(key)},
        "limits": {"keepalive_timeout": "1s"},
    }
    with running(tmp_path / "gateway", settings) as gateway, gateway.wire() as client:
        client.send(start)
        assert client.closed()


def test_ciphers_are_modern(tmp_path: Path) -> None:
    """A handshake gets forward secrecy and authenticated encryption; one that knows CBC alone fails."""
    certificate, key = files(tmp_path)
    context = server_context(ListenKeys(tls_certificate=certificate, tls_key=key))
    assert context is not None
    offered = {cipher["name"] for cipher in context.get_ciphers()}
    assert {name for name in offered if not name.startswith("TLS_")} == {
        *(f"ECDHE-{way}-{cipher}" for way in ("ECDSA", "RSA") for cipher in ("AES256-GCM-SHA384", "AES128-GCM-SHA256")),
        *(f"ECDHE-{way}-CHACHA20-POLY1305" for way in ("ECDSA", "RSA")),
    }
    assert all(cipher["aead"] for cipher in context.get_ciphers())
    assert shaken(context, trusting(certificate)) == "TLSv1.3"
    old = trusting(certificate)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert shaken(context, old) == "TLSv1.2"
    old.set_ciphers("ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA256")
    with pytest.raises(ssl.SSLError, match="NO_SHARED_CIPHER"):
        shaken(context, old)


def shaken(server: ssl.SSLContext, client: ssl.SSLContext) -> str | None:
    """The version that the two sides agree on, in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    other = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (one, other) * 3:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return other.version()


def test_old_protocols_are_not_spoken(tmp_path: Path) -> None:
    """Nothing below TLS 1.2 is spoken."""
    context = server_context(ListenKeys(tls_certificate=files(tmp_path)[0], tls_key=files(tmp_path)[1]))
    assert context is not None
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_without_a_certificate_there_is_no_tls(tmp_path: Path) -> None:
    """Without a certificate, or half of one, there is plain HTTP; that half is a fault of the configuration's."""
    certificate, key = files(tmp_path)
    assert server_context(ListenKeys()) is None
    assert server_context(ListenKeys(tls_certificate=certificate)) is None
    assert server_context(ListenKeys(tls_key=key)) is None


@pytest.mark.parametrize(
    ("certificate", "key"),
    [
        (CERTIFICATE, OTHER_KEY),
        (KEY, CERTIFICATE),
        ("", KEY),
        (CERTIFICATE, ""),
        ("no PEM", "no PEM"),
        (CERTIFICATE[:300], KEY),
    ],
    ids=["another key", "exchanged", "no certificate", "no key", "text", "torn"],
)
def test_files_that_do_not_fit_are_a_fault(certificate: str, key: str, tmp_path: Path) -> None:
    """A certificate and a key that cannot be used together are a fault that names the setting and both files."""
    paths = files(tmp_path, certificate, key)
    with pytest.raises(ConfigError, match=r"^listen\.tls_certificate: ") as raised:
        server_context(ListenKeys(tls_certificate=paths[0], tls_key=paths[1]))
    assert all(str(path) in str(raised.value) for path in paths)


def test_a_file_that_is_gone_is_a_fault(tmp_path: Path) -> None:
    """A file that went away after the configuration was read is a fault as well."""
    certificate, _ = files(tmp_path)
    with pytest.raises(ConfigError, match=os.strerror(errno.ENOENT)):
        server_context(ListenKeys(tls_certificate=certificate, tls_key=tmp_path / "gone"))


def test_a_wrong_certificate_is_exit_2(tmp_path: Path) -> None:
    """The program says in one line what is wrong with its certificate, exit code 2, and so does check-config."""
    certificate, key = files(tmp_path, key=OTHER_KEY)
    settings = {"listen": {"tls_certificate": str(certificate), "tls_key": str(key)}}
    gateway = Gateway(tmp_path / "gateway", settings)
    for command in (("-p", "0"), ("check-config",)):
        done = gateway.run(*command, "--local", str(tmp_path / "data"), *gateway.with_config())
        assert done.returncode == 2
        (complaint,) = [line for line in done.stderr.splitlines() if not line.startswith(("{", "2"))]
        assert "listen.tls_certificate" in complaint


# --- another certificate -----------------------------------------------------------------------------------------


def shown(gateway: LocalGateway, *, name: str | None = "localhost") -> str:
    """The certificate that a new connection is shown, with and without a name that is asked for."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", gateway.port), WAIT_S)
    with plain, context.wrap_socket(plain, server_hostname=name) as connection:
        found = connection.getpeercert(binary_form=True)
    assert found is not None
    return ssl.DER_cert_to_PEM_cert(found)


def plain_of(certificate: str) -> str:
    """A certificate as `shown` gives it."""
    return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(certificate))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sighup_takes_another_certificate(tmp_path: Path, workers: int) -> None:
    """After a SIGHUP new connections get the certificate that is on the disk then, and those that are there go on."""
    certificate, key = files(tmp_path)
    trusted = trusting(certificate)
    settings = {"listen": {"tls_certificate": str(certificate), "tls_key": str(key)}, "server": {"workers": workers}}
    with running(tmp_path / "gateway", settings) as gateway, gateway.wire(tls=trusted) as before:
        assert before.ask(put("/usage", b"1")).status == 204
        files(tmp_path, OTHER_CERTIFICATE, OTHER_KEY)
        assert shown(gateway) == plain_of(CERTIFICATE)
        gateway.signal(signal.SIGHUP)
        (line,) = until(lambda: gateway.events("reloaded"), "the reload")
        assert line["certificate"] == str(certificate)
        # Of several workers one may hear of it a moment later.
        until(lambda: {shown(gateway) for _ in range(8)} == {plain_of(OTHER_CERTIFICATE)}, "every worker to use it")
        assert {shown(gateway, name=None) for _ in range(8)} == {plain_of(OTHER_CERTIFICATE)}
        assert before.ask(put("/usage", b"2")).status == 204
        with gateway.wire(tls=trusting(certificate)) as after:
            assert after.ask(put("/usage", b"3")).status == 204
        assert gateway.stop() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_certificate_changes_nothing(tmp_path: Path, workers: int) -> None:
    """Files that cannot be used are an error in the log at each SIGHUP; the certificate of before stays until they can."""
    certificate, key = files(tmp_path)
    settings = {"listen": {"tls_certificate": str(certificate), "tls_key": str(key)}, "server": {"workers": workers}}
    with running(tmp_path / "gateway", settings) as gateway:
        files(tmp_path, OTHER_CERTIFICATE, KEY)
        gateway.signal(signal.SIGHUP)
        until(lambda: len(gateway.events("reload failed")) == 1, "the failure")
        assert {shown(gateway) for _ in range(4)} == {plain_of(CERTIFICATE)}
        certificate.unlink()
        gateway.signal(signal.SIGHUP)
        until(lambda: len(gateway.events("reload failed")) == 2, "another one")
        assert {shown(gateway) for _ in range(4)} == {plain_of(CERTIFICATE)}
        assert {line["level"] for line in gateway.events("reload failed")} == {"error"}
        assert all("listen.tls_certificate: " in line["reason"] for line in gateway.events("reload failed"))
        assert gateway.events("reloaded") == []
        files(tmp_path, OTHER_CERTIFICATE, OTHER_KEY)
        gateway.signal(signal.SIGHUP)
        until(lambda: {shown(gateway) for _ in range(8)} == {plain_of(OTHER_CERTIFICATE)}, "the other one")
        assert gateway.stop() == 0


def test_a_worker_that_finds_a_bad_certificate(tmp_path: Path) -> None:
    """A worker that is replaced while the files cannot be used says so, is tried again, and receives once they can."""
    certificate, key = files(tmp_path)
    settings = {"listen": {"tls_certificate": str(certificate), "tls_key": str(key)}, "server": {"workers": 2}}
    with running(tmp_path / "gateway", settings) as gateway:
        files(tmp_path, OTHER_CERTIFICATE, KEY)
        os.kill(gateway.events("worker started")[0]["pid"], signal.SIGKILL)
        line = until(lambda: gateway.events("worker not started"), "the error")[0]
        assert "listen.tls_certificate: " in line["reason"]
        assert gateway.events("defect") == []
        files(tmp_path)
        until(lambda: len(gateway.events("worker started")) == 3, "the replacement")
        assert gateway.stop() == 0


def test_half_a_change_is_none(tmp_path: Path) -> None:
    """A new certificate whose key does not fit leaves the context as it is, so that a handshake still succeeds."""
    certificate, key = files(tmp_path)
    listen = ListenKeys(tls_certificate=certificate, tls_key=key)
    context = server_context(listen)
    assert context is not None
    files(tmp_path, OTHER_CERTIFICATE, KEY)
    with pytest.raises(ConfigError):
        renew(context, listen)
    assert context.sni_callback is None


# --- others' -----------------------------------------------------------------------------------------------------


def test_the_certificate_authorities_are_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trusted is what the variables say, AWS_CA_BUNDLE before SSL_CERT_FILE, else what the system trusts."""
    ours, system = tmp_path / "ours.pem", tmp_path / "system.pem"
    for path in (ours, system):
        path.write_text(CERTIFICATE)
    nowhere = ssl.DefaultVerifyPaths(*[None] * 6)  # type: ignore[arg-type]
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nowhere)
    monkeypatch.setattr(trust, "_SYSTEM_BUNDLES", (str(tmp_path / "none"), str(system)))
    assert ca_bundle({}) == str(system)
    assert ca_bundle({"SSL_CERT_FILE": str(ours)}) == str(ours)
    assert ca_bundle({"AWS_CA_BUNDLE": str(ours), "SSL_CERT_FILE": str(tmp_path / "none")}) == str(ours)
    assert ca_bundle({"AWS_CA_BUNDLE": ""}) == str(system)
    monkeypatch.setattr(trust, "_SYSTEM_BUNDLES", ())
    assert ca_bundle({}) is None


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_whom_to_trust_is_not_guessed(name: str, tmp_path: Path) -> None:
    """A variable that names a missing file, or one without certificates, is a fault; nothing else is trusted in its place."""
    with pytest.raises(ConfigError, match=f"{name}: {tmp_path}/none is no file of certificates"):
        ca_bundle({name: str(tmp_path / "none")})
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(ConfigError, match=f"{name}: {tmp_path}/empty.pem is no file of certificates"):
        ca_bundle({name: str(tmp_path / "empty.pem")})


def test_the_environment_is_asked_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without being given variables it is those of the process."""
    assert "AWS_CA_BUNDLE" not in clean_environment()
    (tmp_path / "ours.pem").write_text(CERTIFICATE)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ours.pem"))
    assert ca_bundle() == str(tmp_path / "ours.pem")
