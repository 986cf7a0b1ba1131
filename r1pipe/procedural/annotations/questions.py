"""Questions about a room as ScanQA asks them, chosen so that nobody scores who has not looked at the room."""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import NamedTuple

from r1pipe.procedural.annotations.facts import Facts, article, plural
from r1pipe.procedural.furniture import KIND
from r1pipe.procedural.layout import PALETTE, REPEATED
from r1pipe.procedural.room import Rng
from r1pipe.scenes import graph
from r1pipe.scenes.scene import SceneObject

QUESTIONS_PER_ROOM = 10

_MAX_COUNT = 5


class Question(NamedTuple):
    """A question, its answer and the objects that the answer is about."""

    text: str
    answer: str
    objects: tuple[SceneObject, ...]


def questions(facts: Facts, rng: Rng) -> list[Question]:
    """About ten different questions: colours first, then counts, relations and places; few with two answers only."""
    chosen: dict[str, Question] = {}
    for make, quota in _QUOTAS:
        candidates = make(facts, rng)
        for index in rng.permutation(len(candidates))[:quota]:
            chosen.setdefault(candidates[index].text, candidates[index])
    # Where a kind has too few, colours fill up: their prior says the least.
    spare = _colour(facts, rng)
    for index in rng.permutation(len(spare)):
        if len(chosen) >= QUESTIONS_PER_ROOM:
            break
        chosen.setdefault(spare[index].text, spare[index])
    return list(chosen.values())


def _colour(facts: Facts, rng: Rng) -> list[Question]:
    return [Question(text, facts.colours[o.id], (o,)) for text, o in _pointed(facts)]


def _pointed(facts: Facts) -> Iterator[tuple[str, SceneObject]]:
    """Questions for the colour of one object, by its class or by a relation where its class has several."""
    for label, group in facts.by_label.items():
        if len(group) == 1:
            yield f"what color is the {label}?", group[0]
            continue
        for landmark in facts.unique:
            on = [o for o in group if facts.supports[o.id] == landmark]
            if len(on) == 1:
                yield f"what color is the {label} on the {landmark.label}?", on[0]
            elif not on and (near := graph.nearest(landmark, group)) is not None:
                yield f"what color is the {label} nearest to the {landmark.label}?", near


def _count(facts: Facts, rng: Rng) -> list[Question]:
    """One class that can have several; the number is drawn first, so that each of one to five is asked for as often."""
    numbers: dict[int, list[str]] = {}
    for label, group in facts.by_label.items():
        if label in REPEATED and len(group) <= _MAX_COUNT:
            numbers.setdefault(len(group), []).append(label)
    # Every room has classes with one; asked as often as they occur, "1" would be a good guess.
    several = sorted(n for n in numbers if n > 1)
    if (1 in numbers and rng.random() < _ONE_SHARE) or not several:
        several = [1] if 1 in numbers else []
    asked = [str(rng.choice(numbers[n])) for n in several]
    return [
        Question(f"how many {plural(label)} are in the room?", str(len(group)), tuple(group))
        for label, group in ((label, facts.by_label[label]) for label in asked)
    ]


_ONE_SHARE = 0.25


def _resting(facts: Facts, rng: Rng) -> list[Question]:
    found = []
    for base in facts.unique:
        on = facts.resting_on(base)
        if len(on) == 1:
            found.append(Question(f"what is on the {base.label}?", on[0].label, (on[0],)))
            continue
        for thing in on:
            colour = facts.colours[thing.id]
            if [facts.colours[o.id] for o in on].count(colour) == 1:
                found.append(Question(f"what is the {colour} thing on the {base.label}?", thing.label, (thing,)))
    return found


def _nearest(facts: Facts, rng: Rng) -> list[Question]:
    found = []
    for thing in facts.unique:
        if (near := graph.nearest(thing, facts.things)) is not None:
            found.append(Question(f"what is nearest to the {thing.label}?", near.label, (near,)))
    return found


def _where(facts: Facts, rng: Rng) -> list[Question]:
    found = []
    for thing in facts.unique:
        if KIND[thing.label].place != "hung" and (place := facts.relation(thing)) is not None:
            preposition, landmark = place
            found.append(Question(f"where is the {thing.label}?", f"{preposition} the {landmark.label}", (thing,)))
    return found


def _exists(facts: Facts, rng: Rng) -> list[Question]:
    """A class that is there, in a colour that it has or in one that it has not: a coin decides."""
    label = str(rng.choice(list(facts.by_label)))
    present = [colour for colour in PALETTE if facts.coloured(label, colour)]
    absent = [colour for colour in PALETTE if colour not in present]
    answer, colours = ("yes", present) if rng.random() < 0.5 else ("no", absent)
    if not colours:
        return []
    colour = str(rng.choice(colours))
    text = f"is there {article(f'{colour} {label}')} in the room?"
    return [Question(text, answer, tuple(facts.coloured(label, colour)))]


def _compared(facts: Facts, rng: Rng) -> list[Question]:
    """Two of one class, told apart by colour: a bed and a box would need no look."""
    found = []
    for label, group in facts.by_label.items():
        alone = [o for o in group if len(facts.coloured(label, facts.colours[o.id])) == 1]
        for a, b in combinations(rng.permutation(len(alone)).tolist(), 2):
            pair = [alone[a], alone[b]]
            for word, extreme in (("bigger", graph.largest), ("taller", graph.tallest)):
                if (target := extreme(pair)) is not None:
                    names = " or the ".join(facts.name(o) for o in pair)
                    found.append(Question(f"which is {word}, the {names}?", facts.name(target), (target,)))
    return found


Maker = Callable[[Facts, Rng], list[Question]]

_QUOTAS: tuple[tuple[Maker, int], ...] = (
    (_colour, 4),
    (_count, 2),
    (_resting, 1),
    (_nearest, 1),
    (_where, 1),
    (_exists, 1),
    (_compared, 1),
)
"""Kinds of question with how many of each a room gets at most."""
