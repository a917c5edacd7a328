"""What a store's tables lack: in which order it is brought there, and what is seen meanwhile."""

from __future__ import annotations

from perdure.storage import Checkpoint, MailRow
from perdure.storage.layers import Layers
from perdure.storage.unapplied import Unapplied


def checkpoint(sequence: int) -> Checkpoint:
    return Checkpoint(sequence, 1, mail=[MailRow(sequence, "a", b"1")])


def layer(sequence: int) -> Unapplied:
    made = Unapplied(sequence - 1, sequence)
    made.add(checkpoint(sequence), (1, sequence + 1), 10)
    return made


def seen(layers: Layers) -> list[int]:
    return [n for one in layers.now()[1] for n in one.mail]


def test_what_gathers_is_brought_together_and_seen_until_the_tables_have_it() -> None:
    layers = Layers(0)
    assert layers.is_empty
    for sequence in (1, 2):
        layers.add(checkpoint(sequence), (1, sequence + 1), 10)
    assert (layers.sequence, layers.size, layers.mail_count) == (2, 20, 2)

    begun = layers.begin()
    assert begun is not None
    assert begun.sequence == 2
    layers.add(checkpoint(3), (1, 4), 10)
    assert seen(layers) == [1, 2, 3]
    assert layers.begin() is begun  # again, where that has failed

    layers.end()
    assert (layers.applied, seen(layers), layers.now()[0]) == (2, [3], 1)
    assert not layers.is_begun


def test_a_layer_that_was_made_beside_comes_behind_what_gathered_before() -> None:
    layers = Layers(0)
    layers.add(checkpoint(1), (1, 2), 10)
    layers.add_layer(layer(2))
    layers.add(checkpoint(3), (1, 4), 10)
    assert (layers.is_full, layers.gathered) == (True, 10)

    brought: list[int] = []
    while (begun := layers.begin()) is not None:
        brought.append(begun.sequence)
        layers.end()

    assert brought == [1, 2, 3]
    assert layers.is_empty
    assert layers.begin() is None


def test_a_layer_of_its_own_leaves_no_empty_one_in_front() -> None:
    layers = Layers(4)
    layers.add_layer(layer(5))
    begun = layers.begin()
    assert begun is not None
    assert (begun.follows, begun.sequence, layers.sequence) == (4, 5, 5)
