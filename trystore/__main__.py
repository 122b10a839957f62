"""The command line: tries a store, and prints what holds and which settings the gateway needs."""

from __future__ import annotations

import argparse
import os
import sys
from urllib.parse import urlsplit

import yaml

from trystore.errors import errors
from trystore.finding import Finding, table
from trystore.objects import objects
from trystore.parts import parts
from trystore.session import Place, Trial, Unusable, trial
from trystore.verdict import Verdict, judge

KEPT, NOT_KEPT, UNUSABLE = 0, 1, 2


def main() -> int:
    """Try the store that the arguments name; 0 if the gateway's promise can be kept there, 1 if not, 2 if nothing was tried."""
    place = _place(sys.argv[1:])
    try:
        with trial(place) as started:
            findings = _found(started)
    except Unusable as error:
        print(f"try-store: {error}", file=sys.stderr)
        return UNUSABLE
    verdict = judge(findings)
    print(f"{table(findings)}\n\n{_said(place, verdict)}", end="")
    return NOT_KEPT if verdict.why_not else KEPT


def _place(arguments: list[str]) -> Place:
    parser = argparse.ArgumentParser(
        prog="try-store",
        description="Tries an S3 server out, under a random prefix that is removed again. "
        "Keys come from the arguments or from the standard AWS chain: environment, profile, role.",
    )
    parser.add_argument("url", metavar="URL", help="address of the store, such as https://host:9000")
    parser.add_argument("--bucket", default="", help="where to write; without it a bucket is made, and removed")
    parser.add_argument("--region", default=os.environ.get("AWS_REGION") or "us-east-1", help="default: %(default)s")
    parser.add_argument("--access-key", default="")
    parser.add_argument("--secret-key", default="", help="better in AWS_SECRET_ACCESS_KEY, where no list of processes shows it")
    options = parser.parse_args(arguments)
    url = urlsplit(options.url)
    if url.scheme not in ("http", "https") or not url.hostname or url.path.strip("/"):
        parser.error(f"URL must be an address such as https://host:9000, without a path; {options.url!r} is none")
    if bool(options.access_key) != bool(options.secret_key):
        parser.error("--access-key and --secret-key go together")
    return Place(options.url.rstrip("/"), options.region, options.bucket, options.access_key, options.secret_key)


def _found(started: Trial) -> list[Finding]:
    findings: list[Finding] = []
    try:
        for each in (objects, parts, errors):
            for finding in each(started):
                findings.append(finding)
                # What takes a while is seen to go on.
                print(f"try-store: {finding.what}: {'yes' if finding.holds else 'no'}", file=sys.stderr, flush=True)
    finally:
        left = started.remove()
    detail = f"could not be removed: what stands under {started.prefix}" if left else "all that was made is removed"
    return [*findings, Finding("delete", "DeleteObject", not left, detail)]


def _said(place: Place, verdict: Verdict) -> str:
    if verdict.why_not:
        return f"The gateway cannot keep its promise with this store. {verdict.why_not}\n"
    settings = {"aws": {"endpoint": place.url, "region": place.region}, "s3": verdict.settings}
    notes = "".join(f"{note}\n" for note in verdict.notes)
    addressed = "Buckets are named in the path, as the gateway does wherever aws.endpoint is set.\n"
    # Quoted where YAML would take them for true and false.
    text = yaml.safe_dump(settings, sort_keys=False)
    return f"The gateway can keep its promise with this store, with these settings.\n{notes}{addressed}\n{text}"


if __name__ == "__main__":
    sys.exit(main())
