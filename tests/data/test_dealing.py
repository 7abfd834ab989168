"""Every batch is dealt once, to one process, and all processes take as many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from resnet_fit.data.dealing import Dealer


def deal(size, share, batches, first=0):
    images = batches * 10 - 3  # the last batch is smaller
    return [
        Dealer(rank, size).turns(batches, first, size * share, 10, images) for rank in range(size)
    ]


@given(
    size=st.integers(1, 8),
    share=st.integers(1, 4),
    batches=st.integers(1, 50),
    start=st.integers(0, 5),
)
def test_every_batch_counts_once_and_all_keep_step(size, share, batches, start):
    group = size * share
    first = start * group if start * group < batches else 0
    hands = deal(size, share, batches, first)
    counted = [turn.batch for hand in hands for turn in hand if turn.counts]
    assert sorted(counted) == list(range(first, batches))
    steps = [[(turn.done, turn.ends_group, turn.images) for turn in hand] for hand in hands]
    assert all(other == steps[0] for other in steps)
    ends = [done for done, ends_group, _ in steps[0] if ends_group]
    assert ends == [*range(first + group, batches, group), batches]
    images = sum(images for _, ends_group, images in steps[0] if ends_group)
    assert images == batches * 10 - 3 - first * 10


@given(size=st.integers(2, 6), share=st.integers(1, 4), batches=st.integers(1, 40))
def test_the_batches_of_a_step_are_those_of_one_process(size, share, batches):
    group = size * share
    steps: dict[int, list[int]] = {}
    for hand in deal(size, share, batches):
        for turn in hand:
            steps.setdefault(turn.begin, []).extend([turn.batch] if turn.counts else [])
    alone = {s: list(range(s, min(s + group, batches))) for s in range(0, batches, group)}
    assert steps == alone


def test_one_process_takes_each_batch_as_it_comes():
    turns = Dealer().turns(3, 1, 1, 10, 25)
    assert [(turn.batch, turn.done, turn.counts) for turn in turns] == [(1, 2, True), (2, 3, True)]
    assert [turn.images for turn in turns] == [10, 5]
