"""Whether a gateway goes on by itself once the disk is as it should be."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from reliability.scenario import Client, Died
from testkit.deadlines import until
from testkit.gateway_process import Gateway
from testkit.ledger import Fate, Ledger


class _Answers(Ledger):
    """Passes on what it is told of one client, and remembers how that was answered, whatever others send meanwhile."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger
        self.fates: list[Fate] = []

    def note(self, stream: str, contents: Iterable[bytes], fate: Fate) -> None:
        """See `Ledger.note`."""
        self._ledger.note(stream, contents, fate)
        self.fates.append(fate)


def takes_everything(gateway: Gateway, ledger: Ledger, name: str) -> None:
    """Return once the gateway takes whatever it keeps in a way of its own: in segments, in drafts, with a sidecar."""
    answers = _Answers(ledger)
    client = Client(gateway, answers, name)

    def taken() -> bool:
        requests = [client.small("usage"), client.many("error"), client.large("usage"), client.specimen(3000)]
        answers.fates.clear()
        with suppress(Died):
            client.send(requests)
        return answers.fates == [Fate.ACKNOWLEDGED] * len(requests)

    # The guard looks at the disk now and then, and the journal mends its segment in a second.
    until(taken, "everything to be taken again")
