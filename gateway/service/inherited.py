"""What a process inherits from the one that started it, set right before anything else runs.

| inherited | set to |
|---|---|
| a closed descriptor 0, 1 or 2 | /dev/null: the number would go to the next file or socket that is opened |
| the signal mask | empty, so that SIGTERM arrives |
| SIGPIPE and SIGXFSZ | ignored: a closed pipe and a limit on file sizes are errors of one write, not the end of the process |
| SIGCHLD | its default: where it is ignored the exit code of a child is lost |
| the umask | 077: files and directories are made with modes that a stricter umask would take from their own user |

| SSLKEYLOGFILE | unset: a variable of a login shell must neither keep it from starting nor have it write down secrets of TLS |

What stays as it is: an ignored SIGHUP, limits of resources, the environment, and further descriptors, one of which may be
the configuration (`-c <(…)`).
"""

from __future__ import annotations

import enum
import os
import signal
import sys

_UMASK = 0o077
_STANDARD = ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_WRONLY), (2, "stderr", os.O_WRONLY))


class Hangup(enum.Enum):
    """What a SIGHUP means to this process."""

    IGNORED = "ignored"
    STOP = "stop"
    RELOAD = "reload"


def open_standard_descriptors() -> None:
    """Have descriptors 0, 1 and 2 open; to be called before anything is opened that stays open."""
    for number, name, flags in _STANDARD:
        try:
            os.fstat(number)
        except OSError:
            _open_at(number, flags)
        if getattr(sys, name) is None:
            # The interpreter had found it closed. Without a stream, print(file=sys.stderr) would write to STDOUT.
            mode = "r" if flags == os.O_RDONLY else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 (for the whole process)
    # In a locale without the characters of a path the path is shown escaped.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a text stream by now


def _open_at(number: int, flags: int) -> None:
    try:
        opened = os.open(os.devnull, flags)
    except OSError:
        # Without a /dev, a directory holds the number: to read and to write there are errors, which is what they were.
        opened = os.open("/", os.O_RDONLY)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)


def settle() -> None:
    """Set mask, dispositions, umask and environment; handlers of SIGTERM and SIGINT are there by now, which may be waiting."""
    os.umask(_UMASK)
    os.environ.pop("SSLKEYLOGFILE", None)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def hangup() -> Hangup:
    """What a SIGHUP means.

    It stays ignored where it was (nohup). With a controlling terminal it says that the terminal is gone, and stops the
    gateway, so that a closed terminal leaves no orphan. Otherwise an administrator or a service manager has sent it.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return Hangup.IGNORED
    return Hangup.STOP if _has_terminal() else Hangup.RELOAD


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
