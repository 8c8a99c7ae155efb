from collections import Counter

import numpy as np
import pytest
import torch
from tests.learning.builders import noise, pixels

from active_learning.learning.pixels import (
    EpochBatches,
    LabeledPixels,
    TrainingPixels,
)


def batches(
    n_rows: int,
    batch_size: int,
    *,
    weights: list[float] | None = None,
    seed: int = 0,
    rank: int = 0,
    n_ranks: int = 1,
) -> EpochBatches:
    return EpochBatches(
        n_rows=n_rows,
        weights=None if weights is None else torch.tensor(weights),
        batch_size=batch_size,
        seed=seed,
        rank=rank,
        n_ranks=n_ranks,
    )


def rows(epoch: EpochBatches) -> list[int]:
    return [row for batch in epoch for row in batch]


def test_an_epoch_visits_every_row_once() -> None:
    for epoch in [batches(12, 4)] * 3:
        assert sorted(rows(epoch)) == list(range(12))


@pytest.mark.parametrize("n_rows", [1, 2, 5, 8, 9, 17])
@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_the_ranks_together_visit_every_row_and_some_first_ones_again(
    n_rows: int, n_ranks: int
) -> None:
    shares = [batches(n_rows, 4, rank=rank, n_ranks=n_ranks) for rank in range(n_ranks)]
    lengths = [len(share) for share in shares]

    visits = Counter(row for share in shares for row in rows(share))

    assert set(visits) == set(range(n_rows))
    assert len(set(lengths)) == 1
    extra = visits.total() - n_rows
    assert 0 <= extra < 4 * n_ranks
    # What fills up is spread: no row comes twice more often than another needs to.
    assert max(visits.values()) - min(visits.values()) <= 1


@pytest.mark.parametrize("n_ranks", [2, 3, 4])
def test_shares_of_ranks_have_no_row_in_common(n_ranks: int) -> None:
    shares = [
        set(rows(batches(24, 2, rank=rank, n_ranks=n_ranks))) for rank in range(n_ranks)
    ]

    assert sum(map(len, shares)) == 24
    assert set.union(*shares) == set(range(24))


@pytest.mark.parametrize("n_rows", [1, 3, 4, 5, 9])
def test_every_batch_is_full(n_rows: int) -> None:
    epoch = batches(n_rows, 4)
    sizes = [len(batch) for batch in epoch]

    # Of 5 or 9 rows one would be left alone, and has no batch statistics.
    assert set(sizes) == {4}
    assert len(sizes) == len(epoch)


def test_the_order_is_another_in_each_epoch() -> None:
    epoch = batches(20, 4)

    assert len({tuple(rows(epoch)) for _ in range(5)}) == 5


def test_the_orders_repeat_with_the_seed() -> None:
    one, two, other = batches(20, 4), batches(20, 4), batches(20, 4, seed=1)

    first = [rows(one) for _ in range(3)]

    assert first == [rows(two) for _ in range(3)]
    assert first != [rows(other) for _ in range(3)]


def test_the_order_leaves_random_states_as_they_were() -> None:
    before = torch.get_rng_state()

    rows(batches(20, 4))
    rows(batches(20, 4, weights=[1.0] * 20))

    assert torch.equal(torch.get_rng_state(), before)


def test_rows_are_drawn_as_often_as_they_weigh() -> None:
    # 2 rare rows that weigh 9 each against 18 that weigh 1: half of the draws.
    epoch = batches(20, 5, weights=[9.0] * 2 + [1.0] * 18)

    visits = Counter(row for _ in range(200) for row in rows(epoch))

    assert visits.total() == 4000
    assert visits[0] + visits[1] == pytest.approx(2000, rel=0.1)
    assert visits[0] == pytest.approx(visits[1], rel=0.15)


def test_a_row_that_weighs_nothing_is_not_drawn() -> None:
    assert 0 not in rows(batches(10, 5, weights=[0.0] + [1.0] * 9))


def test_weighted_shares_are_parts_of_one_draw() -> None:
    weights = [float(row) for row in range(1, 13)]
    shares = [
        batches(12, 2, weights=weights, rank=rank, n_ranks=2) for rank in range(2)
    ]

    alone = batches(12, 4, weights=weights)

    assert Counter(rows(alone)) == sum((Counter(rows(s)) for s in shares), Counter())


def test_rows_come_with_their_own_targets() -> None:
    images, targets = noise(6), np.arange(6)

    batch, numbers = LabeledPixels(pixels(images), targets)[[4, 1, 4]]

    assert batch.dtype == torch.uint8
    assert torch.equal(batch, torch.from_numpy(images[[4, 1, 4]]))
    assert numbers.tolist() == [4, 1, 4]


def test_a_loader_gives_whole_batches_of_each_image_once() -> None:
    images, targets = noise(8), np.arange(8)
    labeled = LabeledPixels(pixels(images), targets)

    loaded = list(
        TrainingPixels(labeled, None, batch_size=4, seed=0).train_dataloader()
    )

    assert [tuple(batch.shape) for batch, _ in loaded] == [(4, 28, 28, 1)] * 2
    assert sorted(n for _, numbers in loaded for n in numbers.tolist()) == list(
        range(8)
    )
    for batch, numbers in loaded:
        assert torch.equal(batch, torch.from_numpy(images[numbers.numpy()]))
