"""Credentials come from wherever the standard AWS chain finds them, and certificates are checked against whom one trusts."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.gateway_process import PROGRAM, STREAMS, Gateway, MakeGateway, Settings, settings_for
from testkit.servers import sts
from testkit.servers.minio import Minio
from testkit.servers.sts import CredentialService, Door, Fault, credential_service, door, https
from testkit.stored import files

NO_KEYS = {"access_key_id": None, "secret_access_key": None}
# So short that no credentials are good for a second request: the client renews what holds for less than ten minutes.
SOON_S = 5
WEB_TOKEN = "token-of-the-pod"
CONTAINER_TOKEN = "token-of-the-container"
SSO_TOKEN = "token-of-the-user"


@pytest.fixture
def service(minio: Minio) -> Iterator[CredentialService]:
    """Run the services that give credentials."""
    with credential_service(minio) as running:
        yield running


@pytest.fixture
def entrance(minio: Minio) -> Iterator[Door]:
    """Open a door to the store that knows who came."""
    with door(minio) as opened:
        yield opened


def without_keys(buckets: Buckets, endpoint: str | None) -> Settings:
    """A configuration that leaves the credentials to the chain; at None the endpoint too."""
    return settings_for(buckets, aws={**NO_KEYS, "endpoint": endpoint})


def profiles(folder: Path, text: str, *, file: str = "AWS_CONFIG_FILE") -> dict[str, str]:
    """Write one of the files with profiles; the variable that names it."""
    path = folder / file.lower()
    path.write_text(text)
    return {file: str(path)}


def send(gateway: Gateway, number: int) -> None:
    """Send one of each."""
    assert gateway.put("/usage", b'{"n":%d}' % number) == 204
    assert gateway.put("/error", b'{"n":%d}' % number) == 204
    assert gateway.put(f"/specimen?uri={number}.txt", b"specimen %d" % number) == 204


def delivered(gateway: Gateway, buckets: Buckets, count: int) -> None:
    """Wait until nothing is left, and compare what has arrived with what `send` has sent."""
    until(lambda: gateway.left() == [], "everything to be delivered")
    reports = [b'{"n":%d}' % number for number in range(count)]
    assert sorted(buckets.lines(buckets.usage)) == reports
    assert sorted(buckets.lines(buckets.error)) == reports
    assert sorted(one.body for one in files(buckets, buckets.specimen)) == [b"specimen %d" % n for n in range(count)]


def failures(gateway: Gateway) -> list[str]:
    """The reason of each failure that the log tells."""
    return [event["reason"] for stream in STREAMS for event in gateway.events("delivery failed", stream=stream)]


def delivers(gateway: Gateway, buckets: Buckets, *, rounds: int = 1) -> None:
    """Start, send, wait for it in the store, as often as asked for, and stop, all without one failure."""
    gateway.start()
    for number in range(rounds):
        send(gateway, number)
        delivered(gateway, buckets, number + 1)
    assert failures(gateway) == []
    assert gateway.events("library message") == []
    assert gateway.stop() == 0


# --- keys --------------------------------------------------------------------------------------------------------

KEYS = "aws_access_key_id = {0.access_key}\naws_secret_access_key = {0.secret_key}\n"
SHARED = "AWS_SHARED_CREDENTIALS_FILE"


@pytest.mark.parametrize(
    ("file", "section", "environment"),
    [
        (SHARED, "default", {}),
        (SHARED, "gateway", {"AWS_PROFILE": "gateway"}),
        (SHARED, "gateway", {"AWS_DEFAULT_PROFILE": "gateway"}),
        ("AWS_CONFIG_FILE", "profile gateway", {"AWS_PROFILE": "gateway"}),
        ("BOTO_CONFIG", "Credentials", {}),
    ],
    ids=["shared", "shared, a profile", "shared, the default profile", "config, a profile", "boto"],
)
def test_keys_of_a_file(
    file: str, section: str, environment: dict[str, str], buckets: Buckets, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """Keys in one of the files with profiles are found, under the profile that the environment names."""
    named = profiles(tmp_path, f"[{section}]\n{KEYS.format(buckets.minio)}", file=file)
    delivers(make_gateway(without_keys(buckets, buckets.minio.endpoint), **named, **environment), buckets)


@pytest.mark.parametrize("where", ["configuration", "environment", "profile"])
def test_keys_with_a_session_token(
    where: str, buckets: Buckets, entrance: Door, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """Temporary keys work with their session token, wherever all three are written."""
    keys = sts.temporary(buckets.minio)
    settings, environment = without_keys(buckets, entrance.endpoint), {}
    written = {"access_key_id": keys.access_key, "secret_access_key": keys.secret_key, "session_token": keys.session_token}
    match where:
        case "configuration":
            settings["aws"] |= written
        case "environment":
            environment = {f"AWS_{name.upper()}": str(value) for name, value in written.items()}
        case _:
            lines = "".join(f"aws_{name} = {value}\n" for name, value in written.items())
            environment = profiles(tmp_path, f"[default]\n{lines}", file=SHARED)
    delivers(make_gateway(settings, **environment), buckets)
    assert entrance.access_keys == {keys.access_key}


PROCESS = """\
import os, sys
with open(sys.argv[1], "a") as asked:
    print(os.environ.get("LD_LIBRARY_PATH"), file=asked)
print(open(sys.argv[2]).read())
"""


@pytest.mark.parametrize("expires", [False, True])
def test_a_credential_process(expires: bool, buckets: Buckets, entrance: Door, make_gateway: MakeGateway, tmp_path: Path) -> None:
    """What a profile's `credential_process` prints is used, and asked for again before it expires; it finds its own libraries."""
    keys, later = sts.temporary(buckets.minio), sts.temporary(buckets.minio)
    program, asked, answer = tmp_path / "process.py", tmp_path / "asked", tmp_path / "answer"
    program.write_text(PROCESS)
    expiry = datetime.now(UTC) + timedelta(seconds=300) if expires else None
    answer.write_text(sts.for_process(keys, expiry))
    command = shlex.join([sys.executable, str(program), str(asked), str(answer)])
    named = profiles(tmp_path, f"[default]\ncredential_process = {command}\n")
    gateway = make_gateway(without_keys(buckets, entrance.endpoint), **named)
    gateway.start()
    send(gateway, 0)
    delivered(gateway, buckets, 1)
    assert entrance.access_keys == {keys.access_key}
    answer.write_text(sts.for_process(later, expiry))
    send(gateway, 1)
    delivered(gateway, buckets, 2)
    assert (later.access_key in entrance.access_keys) == expires
    assert failures(gateway) == []
    assert gateway.stop() == 0
    environments = asked.read_text().splitlines()
    assert set(environments) == {str(os.environ.get("LD_LIBRARY_PATH"))}
    assert (len(environments) > 1) == expires


# --- roles -------------------------------------------------------------------------------------------------------

ROLE = f"role_arn = {sts.ROLE_ARN}\n"
SOURCE = "source_profile = source\n"


@pytest.mark.parametrize("told_by", ["AWS_ENDPOINT_URL_STS", "services"])
def test_a_role_is_assumed(told_by: str, buckets: Buckets, entrance: Door, make_gateway: MakeGateway, tmp_path: Path) -> None:
    """A profile with a role is given temporary credentials by MinIO's own STS, and only these are shown to the store."""
    of_the_services = f"services = here\n[services here]\nsts =\n  endpoint_url = {buckets.minio.endpoint}\n"
    text = f"[profile source]\n{KEYS.format(buckets.minio)}[profile gateway]\n{ROLE}{SOURCE}"
    environment = {"AWS_PROFILE": "gateway"}
    if told_by == "services":
        text += of_the_services
    else:
        environment[told_by] = buckets.minio.endpoint
    gateway = make_gateway(without_keys(buckets, entrance.endpoint), **environment, **profiles(tmp_path, text))
    delivers(gateway, buckets)
    assert entrance.access_keys
    assert buckets.minio.access_key not in entrance.access_keys


Way = Callable[[CredentialService, Minio, Path], dict[str, str]]


def by_source_profile(service: CredentialService, minio: Minio, folder: Path) -> dict[str, str]:
    """A role, assumed with the keys of another profile."""
    service.tokens = {minio.access_key}
    text = f"[profile source]\n{KEYS.format(minio)}[profile gateway]\n{ROLE}{SOURCE}"
    return {"AWS_PROFILE": "gateway", "AWS_ENDPOINT_URL_STS": service.address, **profiles(folder, text)}


def by_web_identity(service: CredentialService, _: Minio, folder: Path) -> dict[str, str]:
    """A role, assumed with the token that Kubernetes writes into a file."""
    service.tokens = {WEB_TOKEN}
    token = folder / "web-token"
    token.write_text(WEB_TOKEN)
    return {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
        "AWS_ROLE_ARN": sts.ROLE_ARN,
        "AWS_ROLE_SESSION_NAME": "gateway",
        "AWS_ENDPOINT_URL_STS": service.address,
    }


def by_web_identity_profile(service: CredentialService, minio: Minio, folder: Path) -> dict[str, str]:
    """The same, written into a profile."""
    token = by_web_identity(service, minio, folder)["AWS_WEB_IDENTITY_TOKEN_FILE"]
    text = f"[profile gateway]\n{ROLE}web_identity_token_file = {token}\n"
    return {"AWS_PROFILE": "gateway", "AWS_ENDPOINT_URL_STS": service.address, **profiles(folder, text)}


def by_container(service: CredentialService, _: Minio, folder: Path) -> dict[str, str]:
    """The role of a container."""
    service.tokens = {CONTAINER_TOKEN}
    token = folder / "container-token"
    token.write_text(CONTAINER_TOKEN)
    return {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": service.address + sts.CONTAINER_PATH,
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token),
    }


def by_container_source(service: CredentialService, minio: Minio, folder: Path) -> dict[str, str]:
    """A role, assumed with the credentials of a container."""
    text = f"[profile gateway]\n{ROLE}credential_source = EcsContainer\n"
    environment = by_container(service, minio, folder) | profiles(folder, text)
    service.tokens = None
    return environment | {"AWS_PROFILE": "gateway", "AWS_ENDPOINT_URL_STS": service.address}


def by_sso(service: CredentialService, _: Minio, folder: Path) -> dict[str, str]:
    """The role of a user who has logged in with `aws sso login`."""
    service.tokens = {SSO_TOKEN}
    start = "https://sso.invalid/start"
    cached = folder / ".aws/sso/cache" / f"{hashlib.sha1(start.encode()).hexdigest()}.json"
    cached.parent.mkdir(parents=True)
    expires = datetime.now(UTC) + timedelta(hours=1)
    cached.write_text(json.dumps({"startUrl": start, "accessToken": SSO_TOKEN, "expiresAt": f"{expires:%Y-%m-%dT%H:%M:%SZ}"}))
    text = f"[default]\nsso_start_url = {start}\nsso_region = us-east-1\nsso_account_id = 123456789012\nsso_role_name = gateway\n"
    return {"HOME": str(folder), "AWS_ENDPOINT_URL_SSO": service.address, **profiles(folder, text)}


def by_instance(service: CredentialService, _: Minio, __: Path) -> dict[str, str]:
    """The role of an EC2 instance."""
    return {
        "AWS_EC2_METADATA_DISABLED": "false",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": service.address,
        # One try of a second is little on a machine that is busy.
        "AWS_METADATA_SERVICE_TIMEOUT": "10",
        "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "3",
    }


WAYS: list[Way] = [by_source_profile, by_web_identity, by_web_identity_profile, by_container, by_container_source, by_sso]


@pytest.mark.parametrize("way", [*WAYS, by_instance])
def test_temporary_credentials(
    way: Way, service: CredentialService, buckets: Buckets, entrance: Door, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """Credentials that hold are asked for once for all streams, and only these are shown to the store."""
    environment = way(service, buckets.minio, tmp_path)
    gateway = make_gateway(without_keys(buckets, entrance.endpoint), **environment)
    delivers(gateway, buckets, rounds=2)
    ways = [call.way for call in service.calls]
    assert len(ways) == len(set(ways))
    assert entrance.access_keys == {service.given[-1].access_key}
    assert not any(secret in gateway.said() for secret in service.secrets())


@pytest.mark.parametrize("way", WAYS)
def test_temporary_credentials_are_renewed(
    way: Way, service: CredentialService, buckets: Buckets, entrance: Door, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """Credentials that are about to expire are renewed before they do, and nothing fails meanwhile."""
    service.lifetime_s = SOON_S
    environment = way(service, buckets.minio, tmp_path)
    gateway = make_gateway(without_keys(buckets, entrance.endpoint), **environment)
    gateway.start()
    for number in range(2):
        # Each round is carried by credentials that were given in it.
        before = service.access_keys
        send(gateway, number)
        delivered(gateway, buckets, number + 1)
        assert entrance.access_keys - before
    assert entrance.access_keys <= service.access_keys
    assert failures(gateway) == []
    assert gateway.stop() == 0


def test_the_token_of_a_pod_is_replaced(
    service: CredentialService, buckets: Buckets, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """Each call to STS carries the token that stands in the file by then, which Kubernetes replaces now and then."""
    service.lifetime_s = SOON_S
    environment = by_web_identity(service, buckets.minio, tmp_path)
    gateway = make_gateway(without_keys(buckets, buckets.minio.endpoint), **environment)
    gateway.start()
    send(gateway, 0)
    delivered(gateway, buckets, 1)
    assert {call.token for call in service.calls} == {WEB_TOKEN}
    fresh = tmp_path / "fresh"
    fresh.write_text("token-of-later")
    fresh.replace(environment["AWS_WEB_IDENTITY_TOKEN_FILE"])
    before = len(service.calls)
    service.tokens = {"token-of-later"}
    send(gateway, 1)
    delivered(gateway, buckets, 2)
    assert {call.token for call in service.calls[before:]} == {"token-of-later"}
    assert failures(gateway) == []
    assert gateway.stop() == 0


# --- credentials that cannot be had for a while ------------------------------------------------------------------


def complained(gateway: Gateway, what: str) -> None:
    """Have `check-config` tell what is wrong, and nothing but that."""
    check = gateway.run("check-config", *gateway.with_config())
    assert check.returncode == 2
    lines = check.stderr.splitlines()
    assert lines
    for line in lines:
        assert line.startswith(f"{PROGRAM}: ")
        assert what in line


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(500, "InternalFailure"), "transient"),
        (Fault(400, "Throttling"), "transient"),
        (Fault(403, "AccessDenied"), "refused"),
        (Fault(400, "InvalidIdentityToken"), "refused"),
        (Fault(400, "ExpiredTokenException"), "refused"),
    ],
    ids=lambda value: value.code if isinstance(value, Fault) else value,
)
@pytest.mark.parametrize("before", [False, True], ids=["from the start", "later"])
def test_no_credentials_for_a_while(
    before: bool,
    fault: Fault,
    kind: str,
    service: CredentialService,
    buckets: Buckets,
    make_gateway: MakeGateway,
    tmp_path: Path,
) -> None:
    """While STS gives none everything is received and held, told once and without secrets; it is delivered as soon as it does."""
    service.lifetime_s = SOON_S
    environment = by_web_identity(service, buckets.minio, tmp_path) | {"AWS_MAX_ATTEMPTS": "1"}
    gateway = make_gateway(without_keys(buckets, buckets.minio.endpoint), **environment)
    count = 0
    if before:
        gateway.start()
        send(gateway, 0)
        delivered(gateway, buckets, 1)
        service.fault = fault
        count = 1
    else:
        service.fault = fault
        gateway.start()
    for number in range(count, count + 2):
        send(gateway, number)
    until(lambda: gateway.has_retried(kind, 3), "retries")
    complained(gateway, fault.code)
    assert len(gateway.left()) >= 2 + 2 * 2
    assert gateway.get("/ready").status == 200
    for stream in STREAMS:
        (failed,) = gateway.events("delivery failed", stream=stream)
        assert failed["kind"] == kind
        assert fault.code in failed["reason"]
        assert "credentials" in failed["reason"]
    assert "Traceback" not in gateway.said()
    assert not any(secret in gateway.said() for secret in service.secrets())

    service.fault = None
    delivered(gateway, buckets, count + 2)
    # At its end the gateway has told all.
    assert gateway.stop() == 0
    for stream in STREAMS:
        assert len(gateway.events("delivery recovered", stream=stream)) == 1
    # What the library says of each attempt would drown the rest.
    assert len(gateway.events("library message")) <= 1


@pytest.mark.parametrize("way", [by_container, by_instance])
def test_no_role_for_a_while(
    way: Way, service: CredentialService, buckets: Buckets, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """While the machine has no role everything is received and held, told once; it is delivered as soon as it has one."""
    service.fault = Fault(404, "NoSuchRole")
    environment = way(service, buckets.minio, tmp_path) | {"AWS_METADATA_SERVICE_NUM_ATTEMPTS": "1"}
    gateway = make_gateway(without_keys(buckets, buckets.minio.endpoint), **environment)
    gateway.start()
    send(gateway, 0)
    # The library asks a container's endpoint three times, with pauses, and does so for one stream after the other.
    until(lambda: failures(gateway), "a failure to be told")
    service.fault = None
    delivered(gateway, buckets, 1)
    assert len(failures(gateway)) <= len(STREAMS)
    assert all("no usable AWS credentials" in reason for reason in failures(gateway))
    assert "Traceback" not in gateway.said()
    assert not any(secret in gateway.said() for secret in service.secrets())
    assert gateway.stop() == 0


def test_credentials_that_still_hold(
    service: CredentialService, buckets: Buckets, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """STS that is away while the credentials hold for minutes holds up nothing, which the log tells once."""
    # In its last quarter of an hour a session is renewed early, and has to be in its last ten minutes.
    service.lifetime_s = 14 * 60
    environment = by_web_identity(service, buckets.minio, tmp_path) | {"AWS_MAX_ATTEMPTS": "1"}
    gateway = make_gateway(without_keys(buckets, buckets.minio.endpoint), **environment)
    gateway.start()
    send(gateway, 0)
    delivered(gateway, buckets, 1)
    service.fault = Fault(500, "InternalFailure")
    before = len(service.calls)
    send(gateway, 1)
    delivered(gateway, buckets, 2)
    assert len(service.calls) > before
    assert failures(gateway) == []
    (message,) = gateway.events("library message")
    assert "InternalFailure" in message["error"]
    assert gateway.stop() == 0


def by_garbage(_: CredentialService, __: Minio, folder: Path) -> dict[str, str]:
    """A program that prints something else than credentials."""
    return profiles(folder, "[default]\ncredential_process = /bin/echo these are none\n")


def by_expired(service: CredentialService, minio: Minio, folder: Path) -> dict[str, str]:
    """Credentials that had expired before they came, as they have for a machine whose clock is ahead."""
    service.lifetime_s = -60
    return by_web_identity(service, minio, folder)


@pytest.mark.parametrize("way", [by_garbage, by_expired])
def test_useless_credentials(
    way: Way, service: CredentialService, buckets: Buckets, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """What is given and is of no use is told once as such, is no defect of the gateway's, and all is held."""
    environment = way(service, buckets.minio, tmp_path)
    gateway = make_gateway(without_keys(buckets, buckets.minio.endpoint), **environment)
    complained(gateway, "no usable AWS credentials")
    gateway.start()
    send(gateway, 0)
    until(lambda: gateway.has_retried("refused", 3), "retries")
    assert len(failures(gateway)) == len(STREAMS)
    assert all("no usable AWS credentials" in reason for reason in failures(gateway))
    assert gateway.events("defect") == []
    assert "Traceback" not in gateway.said()
    assert gateway.stop(10) == 3
    assert len(gateway.left()) == 4


# --- the store's address -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("told_by", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "services"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_store_of_the_environment(
    host: str, told_by: str, buckets: Buckets, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """Without `aws.endpoint` the store is where the environment or the profile says, its buckets named in the path."""
    endpoint = buckets.minio.endpoint.replace("127.0.0.1", host)
    environment = {told_by: endpoint, "NO_PROXY": host}
    if told_by == "services":
        environment |= profiles(tmp_path, f"[default]\nservices = here\n[services here]\ns3 =\n  endpoint_url = {endpoint}\n")
    delivers(make_gateway(settings_for(buckets, aws={"endpoint": None}), **environment), buckets)


# --- whom to trust -----------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """Write the certificate of the private authority."""
    path = tmp_path / "authority.pem"
    path.write_text(sts.AUTHORITY)
    return path


@pytest.mark.parametrize("told_by", ["SSL_CERT_FILE", "AWS_CA_BUNDLE", "ca_bundle"])
def test_a_private_authority_is_trusted(
    told_by: str, authority: Path, buckets: Buckets, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """Store and STS are trusted both when their authority is that of a variable, or of the profile."""
    with credential_service(buckets.minio, https(tmp_path)) as service, door(buckets.minio, https(tmp_path)) as entrance:
        environment = by_web_identity(service, buckets.minio, tmp_path) | {told_by: str(authority)}
        if told_by == "ca_bundle":
            environment |= profiles(tmp_path, f"[profile private]\nca_bundle = {authority}\n") | {"AWS_PROFILE": "private"}
        gateway = make_gateway(without_keys(buckets, entrance.endpoint), **environment)
        check = gateway.run("check-config", *gateway.with_config())
        assert (check.returncode, check.stderr) == (0, "")
        delivers(gateway, buckets)
        assert entrance.access_keys == service.access_keys


@pytest.mark.parametrize("who", ["store", "sts"])
def test_a_stranger_is_not_trusted(
    who: str, authority: Path, buckets: Buckets, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """A store, or STS, whose authority is unknown gets nothing; the log says why, and all is held until it is trusted."""
    of_sts, of_store = (https(tmp_path) if who == one else None for one in ("sts", "store"))
    with credential_service(buckets.minio, of_sts) as service, door(buckets.minio, of_store) as entrance:
        environment = by_web_identity(service, buckets.minio, tmp_path) | {"AWS_MAX_ATTEMPTS": "1"}
        gateway = make_gateway(without_keys(buckets, entrance.endpoint), **environment)
        check = gateway.run("check-config", *gateway.with_config())
        assert check.returncode == 2
        assert "certificate verify failed" in check.stderr
        gateway.start()
        send(gateway, 0)
        until(lambda: gateway.has_retried("transient", 3), "retries")
        assert len(gateway.left()) >= 2 + 2
        for reason in failures(gateway):
            assert "certificate verify failed" in reason
        assert len(failures(gateway)) == len(STREAMS)
        assert "Traceback" not in gateway.said()
        assert not entrance.access_keys
        gateway.kill()

        gateway = make_gateway(gateway.settings, SSL_CERT_FILE=str(authority), **environment)
        gateway.start()
        delivered(gateway, buckets, 1)
        assert gateway.stop() == 0


@pytest.mark.parametrize("command", ["serve", "check-config"])
@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "AWS_CA_BUNDLE"])
def test_an_authority_that_is_missing_is_exit_2(
    name: str, command: str, buckets: Buckets, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """A variable that names a missing file of authorities is told in one line, exit code 2, and nothing is received."""
    gateway = make_gateway(settings_for(buckets), **{name: str(tmp_path / "gone.pem")})
    done = gateway.run(command, "-p", "0", *gateway.with_config())
    assert done.returncode == 2
    (complaint,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert complaint.startswith(f"{PROGRAM}: {name}: {tmp_path}/gone.pem is no file of certificates")


def test_an_authority_of_a_profile_that_is_missing(buckets: Buckets, make_gateway: MakeGateway, tmp_path: Path) -> None:
    """A profile that names a missing file of authorities is refused, and told with the name of that file; all is held."""
    named = profiles(tmp_path, f"[default]\nca_bundle = {tmp_path}/gone.pem\n{KEYS.format(buckets.minio)}")
    gateway = make_gateway(without_keys(buckets, buckets.minio.endpoint), **named)
    complained(gateway, f"{tmp_path}/gone.pem is no file of certificates")
    gateway.start()
    send(gateway, 0)
    until(lambda: gateway.has_retried("refused", 2), "retries")
    assert len(failures(gateway)) == len(STREAMS)
    assert all(f"{tmp_path}/gone.pem is no file of certificates" in reason for reason in failures(gateway))
    assert gateway.stop(10) == 3
    assert len(gateway.left()) == 4
