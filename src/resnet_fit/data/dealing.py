"""Which batches of an epoch are this process's, where several train one network.

The batches that one optimizer step accumulates are dealt to the processes in equal parts, in their
order, and a batch is never cut: a batch norm sees the same images however many processes there are,
and each batch keeps the random numbers that belong to it. The last group of an epoch may hold fewer
batches. Then the processes that have nothing left take its first batch again, which does not count:
all of them take as many, since each step adds up over all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """One batch that a process takes.

    Attributes:
        batch: its number in the epoch, from 0.
        counts: whether it is trained on or judged; False for one that only keeps step.
        ends_group: whether the group of batches ends with it, and the optimizer steps.
        begin, end: the numbers of the group's first batch, and of the next group's.
        images: of the whole group, over all processes.
        batches: of the whole epoch.
    """

    batch: int
    counts: bool
    ends_group: bool
    begin: int
    end: int
    images: int
    batches: int

    @property
    def done(self) -> int:
        """Batches that all processes together have done after it: it grows with whole groups."""
        return self.end if self.ends_group else self.begin


class Dealer:
    """Deals batches to the processes, and knows which one this process has in hand.

    Args:
        rank, size: this process, and how many there are.

    Attributes:
        turn: the batch that a loader handed out last; None before the first.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.turn: Turn | None = None

    @property
    def counts(self) -> bool:
        """Whether the batch in hand counts."""
        return self.turn is None or self.turn.counts

    def turns(
        self, batches: int, first: int, group: int, batch_size: int, images: int
    ) -> list[Turn]:
        """This process's turns in an epoch.

        Args:
            batches: of the epoch, over all processes.
            first: the batch to begin with, the first one of a group.
            group: batches that are dealt at a time; ``size`` divides it.
            batch_size: images of a full batch.
            images: of the epoch.
        """

        def of(begin: int) -> Iterator[Turn]:
            end = min(begin + group, batches)
            share = group // self.size
            own = range(begin + self.rank * share, min(begin + (self.rank + 1) * share, end))
            taken = min(share, end - begin)  # by the first process, which has the most
            held = min(end * batch_size, images) - begin * batch_size
            for i in range(taken):
                counts, last = i < len(own), i == taken - 1
                batch = own[i] if counts else begin
                yield Turn(batch, counts, last, begin, end, held, batches)

        return [turn for begin in range(first, batches, group) for turn in of(begin)]
