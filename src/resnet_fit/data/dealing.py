"""How the batches of an epoch are distributed over processes that train one network.

The batches that one optimizer step accumulates form a group. Each process gets an equal part of the
group, in order, and batches are never split: batch norm sees the same images, and each batch has
the same random numbers, for any number of processes. The last group of an epoch may have fewer
batches. Then a process without a batch repeats the first one of the group, which does not count:
every process must take part in the same number of all-reduces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """One batch that a process takes.

    Attributes:
        batch: its index in the epoch, from 0.
        counts: whether it is trained on or evaluated; False for a repeated batch.
        ends_group: whether it is the last of its group, after which the optimizer steps.
        begin, end: indices of the first batch of this group and of the next one.
        images: in the whole group, over all processes.
        batches: in the whole epoch, over all processes.
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
        """Batches finished by all processes after this one; it grows by whole groups."""
        return self.end if self.ends_group else self.begin


class Dealer:
    """Distributes batches over processes, and holds the current batch of this process.

    Args:
        rank, size: this process's rank, and the number of processes.

    Attributes:
        turn: the batch that a loader handed out last; None before the first.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.turn: Turn | None = None

    @property
    def counts(self) -> bool:
        """Whether the current batch counts."""
        return self.turn is None or self.turn.counts

    def turns(
        self, batches: int, first: int, group: int, batch_size: int, images: int
    ) -> list[Turn]:
        """This process's turns in an epoch.

        Args:
            batches: in the epoch, over all processes.
            first: index of the batch to begin with, the first of a group.
            group: batches in a group; a multiple of ``size``.
            batch_size: images in a full batch.
            images: in the epoch.
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
