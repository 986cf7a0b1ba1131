"""Longer texts about a room, as 3D-LLM has them: dialogue, plans, questions in a situation, descriptions."""

from collections.abc import Iterator
from typing import NamedTuple

from r1pipe.procedural.annotations.facts import Facts, article, listing, plural
from r1pipe.procedural.annotations.situations import Situation
from r1pipe.procedural.furniture import KIND
from r1pipe.procedural.room import Rng

_LIGHT = ("on", "free", "table")
"""What a person can carry stands freely, at a table or on something."""


class Turn(NamedTuple):
    """What is said to the assistant, the whole history included, and what it answers."""

    question: str
    answer: str


def prompt(*turns: str) -> str:
    """Utterances of the human and the assistant in turn, as 3D-LLM writes them, waiting for the assistant."""
    speakers = ("### human: ", "### assistant: ")
    return " ".join(speakers[i % 2] + turn for i, turn in enumerate(turns)) + " ### assistant:"


def dialogue(facts: Facts, rng: Rng) -> list[Turn]:
    """Two turns: a number or a place first, then a colour."""
    count = len(facts.things)
    openings = [*_numbers(facts), *_places(facts)] or [("how many things do you see?", f"i see {count} things.")]
    follow_ups = [(f"what color is the {o.label}?", f"the {o.label} is {facts.colours[o.id]}.") for o in facts.unique]
    first_question, first_answer = openings[rng.integers(len(openings))]
    second_question, second_answer = follow_ups[rng.integers(len(follow_ups))]
    history = prompt(first_question, first_answer, second_question)
    return [Turn(prompt(first_question), first_answer), Turn(history, second_answer)]


def _numbers(facts: Facts) -> Iterator[tuple[str, str]]:
    for label, group in facts.by_label.items():
        if len(group) > 1:
            yield f"how many {plural(label)} do you see?", f"i see {len(group)} {plural(label)}."


def _places(facts: Facts) -> Iterator[tuple[str, str]]:
    for thing in facts.unique:
        if (place := facts.relation(thing)) is not None:
            yield f"where is the {thing.label}?", f"the {thing.label} is {place[0]} the {place[1].label}."


def plan(facts: Facts, rng: Rng) -> Turn | None:
    """Steps that carry a thing of this room from where it is to where it goes; None where nothing can be carried."""
    light = [(o, name) for o in facts.things if KIND[o.label].place in _LIGHT and (name := facts.short_name(o))]
    goals = [o for o in facts.unique if KIND[o.label].surface == 1.0 or o.label == "door"]
    pairs = [(a, name, b) for a, name in light for b in goals if facts.supports[a.id] != b]
    if not pairs:
        return None
    thing, name, goal = pairs[rng.integers(len(pairs))]
    place = facts.relation(thing)
    where = "" if place is None else f" {place[0]} the {place[1].label}"
    preposition = "next to" if goal.label == "door" else "on"
    steps = (
        f"walk to the {facts.name(thing)}{where}",
        f"pick up the {thing.label}",
        f"walk to the {facts.name(goal)}",
        f"put the {thing.label} {preposition} the {goal.label}",
    )
    question = prompt(f"put the {name} {preposition} the {goal.label}.")
    return Turn(question, " ".join(f"{number}. {step}." for number, step in enumerate(steps, 1)))


def embodied(situation: Situation) -> Turn:
    """A situated question in one utterance, without a pose."""
    return Turn(prompt(f"{situation.text} {situation.question}"), situation.answer)


def description(facts: Facts) -> Turn:
    """What there is, how much of it, and where some of it is."""
    nouns = [
        article(facts.name(group[0])) if len(group) == 1 else f"{len(group)} {plural(label)}"
        for label, group in facts.by_label.items()
    ]
    resting = [
        f"{article(facts.name(o))} is on the {base.label}."
        for o in facts.things
        if (base := facts.supports[o.id]) is not None and base in facts.unique
    ]
    return Turn(prompt("describe the room."), " ".join([f"the room has {listing(nouns)}.", *resting[:2]]))
