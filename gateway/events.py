"""Every event of the log."""

from __future__ import annotations

from typing import Final

EVENTS: Final[dict[str, str]] = {
    "gateway starting": "The program began; the line names its version.",
    "configuration in effect": "The settings this run uses, secrets masked.",
    "recovery done": "What an earlier run left in the spool has been found and put in order.",
    "disk too small": "No body can be received: the disk of cache_dir has no more than spool.reserve keeps free.",
    "quarantined": "Received data that cannot be read was set aside for a person; nothing was erased.",
    "open files allowed": "The limit of open files that this run has; the soft one was raised to the hard one.",
    "connections wait": "As many connections are open as the limit of open files allows; idle ones are closed, others wait.",
    "connections accepted again": "No client has to wait for a connection; the line says how often and how long some had to.",
    "worker started": "A worker process accepts requests; told where server.workers is above 1.",
    "worker not started": "A worker process could not be started again; the others go on, and it is tried again.",
    "worker died": "A worker process ended by itself; what it acknowledged is safe, and another takes its place.",
    "worker recovered": "What a dead worker left in the spool has been found and put in order.",
    "worker not recovered": "What a dead worker left cannot be put in order yet; nothing is lost and it is tried again.",
    "listening": "The gateway accepts requests at this address from now on.",
    "reloaded": "A SIGHUP came: new connections get the certificate that is on the disk now.",
    "reload failed": "A SIGHUP came, and the certificate on the disk cannot be used; the one of before stays in use.",
    "request done": "A request was answered with a status below 400.",
    "request failed": "A request was answered with a status of 400 or above.",
    "clock stepped": "The machine's clock was set by step_s seconds; what comes from now on is filed under the new time.",
    "TLS handshake failed": "A client did not get to speak TLS, such as one that sent plain HTTP; its connection was closed.",
    "TLS handshakes recovered": "No handshake has failed for a minute; the line says how often and how long some did.",
    "stopping begun": "The gateway takes no new requests and delivers what it holds.",
    "stopped": "The gateway has ended; the line says what was left in the spool.",
    "spool adopted": "What the Go edition left in cache_dir was taken over.",
    "FORMAT restored": "The file FORMAT of cache_dir was lost or torn; what stands there was known by its names.",
    "spool failed": "The disk does not keep reports; clients get 503 or 507 until it does.",
    "spool recovered": "The disk keeps reports again; the line says how often and how long it failed.",
    "segment not cut": "A segment could not be renamed; it is written to further and tried again.",
    "segment cut again": "Segments are cut again; the line says how often and how long it failed.",
    "aggregation failed": "A batch could not be claimed, aggregated or sealed; nothing is lost and it is tried again.",
    "aggregation recovered": "Aggregation works again; the line says how often and how long it failed.",
    "key numbers not kept": "The disk has no room to keep which keys were used; they are written down when it has.",
    "key numbers kept": "What keys were used is on the disk again; the line says how often and how long it was not.",
    "cache_dir lost": "cache_dir is another gateway's, or another directory than at the start; nothing is received or sent.",
    "cache_dir found again": "cache_dir is where it was at the start; the line says how often and how long it was not.",
    "segment cut short": "Somebody has shortened the segment that was being written: acknowledged reports are gone from it.",
    "segment rescued": "A segment that was being written had lost its name; what was acknowledged in it stands in a copy.",
    "sealed unpacked": "The disk had no room for an archive: a file of reports is compressed while it is sent.",
    "request not answered": "The disk would neither keep a body nor let it go; the connection was closed without an answer.",
    "requests abandoned": "Requests were not finished within shutdown.request_timeout; their senders got no answer.",
    "drain timed out": "shutdown.drain_timeout passed with data left to send; it is sent after the next start.",
    "defect": "The gateway met an error that it has no rule for; please report the line. Nothing acknowledged is lost.",
    "log lines dropped": "STDERR was blocked or broken for so long that this many lines are missing here.",
    "library message": "A library the gateway stands on warned or failed.",
}
# A stream's events are named f"{stream} {verb}", so that a new stream brings its events along.
STREAM_EVENTS: Final[dict[str, str]] = {
    "sent": "The store has confirmed an object of this stream.",
    "failed": "An object of this stream could not be delivered; it is kept and will be tried again.",
    "recovered": "Delivery of this stream works again; the line says how often and how long it failed.",
}
