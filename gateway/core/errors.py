"""The errors the rooms raise; which HTTP status each becomes is chosen in one table in `web/responses.py`."""

from __future__ import annotations

import errno

# A store, a proxy before it, or a program that gives credentials may say anything, of any length.
MAX_REASON_CHARACTERS = 1000


class GatewayError(Exception):
    """Anything the gateway raises on purpose; its text is fit for an operator or a client."""


class ConfigError(GatewayError):
    """The configuration cannot be used.

    Attributes:
        faults: one sentence for each fault, each beginning with the path of its key.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class NoPlaceToListen(ConfigError):
    """Neither a port nor a Unix socket is given."""


class StartError(GatewayError):
    """The gateway cannot start here: the spool is locked, newer than this version, or not writable."""


def again(error: GatewayError) -> GatewayError:
    """The same error as a new object: one that is raised many times keeps the frames of each, and all that they hold."""
    return type(error)(*error.args)


# --- what a client did -------------------------------------------------------------------------------------------


class MalformedRequest(GatewayError):
    """The bytes of the request are not HTTP/1.1, or pass a bound of its head; nothing after them can be read."""


class UnsupportedVersion(GatewayError):
    """The request is in a version of HTTP that is not spoken here."""


class NotImplementedHere(GatewayError):
    """The request uses a method, or a transfer coding, that is not implemented here."""


class ExpectationFailed(GatewayError):
    """The request expects something other than 100-continue."""


class Unauthorized(GatewayError):
    """The request names no user."""


class BadRequest(GatewayError):
    """The request is not one the gateway can make sense of."""


class TooLarge(GatewayError):
    """The body is over its limit, as sent or once decoded."""


class UnsupportedEncoding(GatewayError):
    """The body has a Content-Encoding that the gateway does not understand."""


class BodyTimeout(GatewayError):
    """The client stopped sending in the middle of a body."""


class ClientGone(GatewayError):
    """The client went away in the middle of a body; nobody reads the answer."""


class Unanswerable(GatewayError):
    """It is not known whether what was sent stays, so the connection is closed without an answer.

    Attributes:
        stays: whether it is there now.
    """

    def __init__(self, message: str, *, stays: bool = True) -> None:
        super().__init__(message)
        self.stays = stays


# --- what the gateway cannot do now ------------------------------------------------------------------------------


class Overloaded(GatewayError):
    """Too much is pending; the same request may succeed in a moment."""


class Stopping(GatewayError):
    """The gateway is shutting down."""


class SpoolFull(GatewayError):
    """The disk, or the quota of the spool, has no room."""


class SpoolBroken(GatewayError):
    """The disk refuses to keep what was received."""


# --- what a store answered ---------------------------------------------------------------------------------------


class StoreError(GatewayError):
    """A store did not take an object; of what it said only so much is kept as a person reads.

    Attributes:
        status: of the HTTP answer, 0 if there was none.
        code: the store's own word for the error, empty if it gave none.
    """

    def __init__(self, reason: str, *, status: int = 0, code: str = "") -> None:
        super().__init__(reason if len(reason) <= MAX_REASON_CHARACTERS else f"{reason[:MAX_REASON_CHARACTERS]} …")
        self.status = status
        self.code = code


class Transient(StoreError):
    """The store is away, busy or unclear; the same put will succeed later."""


class Throttled(Transient):
    """The store takes some requests and not this one: it is asked too often."""


class Refused(StoreError):
    """The store says no until a person changes something: credentials, a bucket, a policy."""


class ObjectRefused(Refused):
    """The store says no to this one object; others of the stream are not concerned."""


def is_full(error: OSError) -> bool:
    """Whether the disk, or somebody's share of it, has no room; also for one more name."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def refusal(error: OSError) -> GatewayError:
    """What a failed write to the spool means to the client."""
    if error.errno == errno.ENOSPC:
        return SpoolFull("the disk has no room")
    if error.errno == errno.EDQUOT:
        return SpoolFull("the quota that the file system has for this user is used up")
    if error.errno == errno.EMFILE:
        return Overloaded("no file can be opened: this process has reached its limit of open files (ulimit -n, LimitNOFILE=)")
    if error.errno == errno.ENFILE:
        return Overloaded("no file can be opened: this machine has reached its limit of open files (fs.file-max)")
    if error.errno == errno.EFBIG:
        return SpoolBroken("the process may not write a file of this size: raise its limit (ulimit -f, LimitFSIZE)")
    return SpoolBroken(f"the disk did not keep it ({error.strerror or error})")
