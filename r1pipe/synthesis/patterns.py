"""Kinds of question, and for each the look-ups in the room that answer it.

Each next word is one look-up away: the class, then the identifier right after its name, the attribute right after the
identifier. Identifiers in a row are a list, whose order means nothing, so that objects can be renumbered later; two
lists never stand side by side.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from r1pipe.datasets import Sample
from r1pipe.metrics.answers import clean_answer
from r1pipe.response import identifier, identifiers
from r1pipe.scenes import SceneObject, graph
from r1pipe.scenes.colours import NAMED
from r1pipe.synthesis.phrases import Found, find, find_one
from r1pipe.synthesis.room import NONE, Room, names

SO = "so"
"""Stands before a conclusion that is no attribute of the last object named."""

_MAX_MENTIONS = 4
_SENTENCE = re.compile(r"(?<=[.?!])\s+")
_TRAILING = re.compile(r"(?: (?:in (?:the|this) room|there|here))*[\s.?!]*$")


class Reasoning(NamedTuple):
    """Look-ups, and what follows from them."""

    words: str
    """The look-ups, without the conclusion."""

    conclusion: str | None
    """What the room says; None where the annotated answer itself was looked up and found true."""


class Ask(NamedTuple):
    """A question with what is needed to answer it."""

    sample: Sample
    room: Room
    answer: str
    """The annotated answer."""

    def find(self, phrase: str) -> Found | None:
        """The objects of a phrase."""
        return find(phrase, self.room, self.sample.pose)

    def settled(self, phrase: str) -> Found | None:
        """As `find`, and none of them could be disputed: how near is next to?"""
        return None if "next to" in phrase else self.find(phrase)

    def find_one(self, phrase: str) -> Found | None:
        """The one object of a phrase."""
        return find_one(phrase, self.room, self.sample.pose)


def reason(sample: Sample, room: Room, answer: str) -> Reasoning:
    """The look-ups of the first pattern that fits the question and is clear in this room.

    Where none is: the objects that the question names, with their colours, then the annotated answer.
    """
    ask = Ask(sample, room, answer)
    question = core(sample.question)
    for pattern, derive in _PATTERNS:
        if (match := pattern.fullmatch(question)) is not None and (found := derive(match, ask)) is not None:
            return found
    found = _referred(question, ask) if sample.task == "grounding" else None
    return found or _mentioned(ask)


def core(question: str) -> str:
    """The last sentence of a question in lower case, without what says nothing about objects.

    >>> core("I am facing the door. How many chairs are there in the room?")
    'how many chairs are'
    """
    return _TRAILING.sub("", _SENTENCE.split(question.strip())[-1].lower())


def agrees(conclusion: str, sample: Sample) -> bool:
    """Whether what the room says is one of the references, up to spelling and articles."""
    return _plain(conclusion) in {_plain(answer) for answer in sample.answers}


def _plain(text: str) -> str:
    return clean_answer(text.strip(" .,")).replace("grey", "gray")


def conclude(thinking: str) -> str:
    """The answer that follows from reasoning alone, however it came about: the second pass.

    What stands after `so`; else after the last identifier or `none`; else these themselves.

    >>> conclude("table <obj_002> nearest <obj_005> lamp")
    'lamp'
    >>> conclude("chair <obj_001> <obj_004>")
    '<obj_001> <obj_004>'
    """
    words = thinking.split()
    if SO in words:
        return " ".join(words[words.index(SO) + 1 :])
    marks = [i for i, word in enumerate(words) if word == NONE or identifiers(word)]
    if not marks:
        return words[-1] if words else ""
    tail = words[marks[-1] + 1 :]
    return " ".join(tail or _trailing_list(words))


def _trailing_list(words: list[str]) -> list[str]:
    start = len(words)
    while start > 0 and (words[start - 1] == NONE or identifiers(words[start - 1])):
        start -= 1
    return words[start:]


def _colour(match: re.Match[str], ask: Ask) -> Reasoning | None:
    found = ask.find_one(match["phrase"])
    colour = ask.room.colour(found.objects[0]) if found is not None else None
    return None if found is None or colour is None else Reasoning(found.words, colour)


def _count(match: re.Match[str], ask: Ask) -> Reasoning | None:
    found = ask.settled(" ".join(part for part in match.groups() if part))
    return None if found is None else Reasoning(found.words, str(len(found.objects)))


def _exists(match: re.Match[str], ask: Ask) -> Reasoning | None:
    found = ask.settled(match["phrase"])
    return None if found is None else Reasoning(found.words, "yes" if found.objects else "no")


def _what(match: re.Match[str], ask: Ask) -> Reasoning | None:
    found = ask.find_one(match["phrase"])
    return None if found is None else Reasoning(found.words, found.objects[0].label)


def _is_coloured(match: re.Match[str], ask: Ask) -> Reasoning | None:
    seen = _colour(match, ask)
    if seen is None:
        return None
    same = seen.conclusion == match["colour"].replace("grey", "gray")
    return Reasoning(f"{seen.words} {seen.conclusion} {SO}", "yes" if same else "no")


def _compared(match: re.Match[str], ask: Ask) -> Reasoning | None:
    pair = [ask.find_one(match["one"]), ask.find_one(match["two"])]
    found = [each for each in pair if each is not None]
    if len(found) < 2:
        return None
    extreme = graph.tallest if match["word"] == "taller" else graph.largest
    target = extreme([each.objects[0] for each in found])
    if target is None:
        return None
    phrase = match["one"] if target == found[0].objects[0] else match["two"]
    return Reasoning(f"{found[0].words} {found[1].words} {match['word']} {identifier(target.id)}", phrase)


def _direction(match: re.Match[str], ask: Ask) -> Reasoning | None:
    found, pose = ask.find_one(match["phrase"]), ask.sample.pose
    if found is None or pose is None:
        return None
    side = graph.side(pose.position, pose.rotation, found.objects[0].box.centre)
    return None if side is None else Reasoning(found.words, side)


def _where(match: re.Match[str], ask: Ask) -> Reasoning | None:
    """The annotated place, looked up: there is more than one true answer."""
    place = _PLACE.fullmatch(core(ask.answer))
    found = ask.find_one(match["phrase"])
    if place is None or found is None:
        return None
    landmark, there = ask.find_one(place["anchor"]), ask.find(f"{match['phrase']} {place[0]}")
    if landmark is None or there is None:
        return None
    holds = found.objects[0] in there.objects
    # The word between the two keeps them from being one list.
    return Reasoning(f"{found.words} near {names(landmark.objects)}", None if holds else f"not {place[0]}")


_PLACE = re.compile(r"(?:on|next to) (?P<anchor>the .+)")

_PATTERNS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], Ask], Reasoning | None]], ...] = (
    (re.compile(r"(?:what|which) colou?r (?:is|are) (?P<phrase>.+)"), _colour),
    (re.compile(r"what is the colou?r of (?P<phrase>.+)"), _colour),
    (re.compile(r"how many (.+?)(?: (?:are|is|do you see)(?: (.+))?)?"), _count),
    (re.compile(r"(?:is|are) there (?P<phrase>(?:a|an|any) .+)"), _exists),
    (re.compile(r"which is (?P<word>bigger|larger|taller), (?P<one>the .+) or (?P<two>the .+)"), _compared),
    (re.compile(r"which direction is (?P<phrase>.+) from me"), _direction),
    (re.compile(r"where is (?P<phrase>.+)"), _where),
    (re.compile(rf"is (?P<phrase>the .+) (?P<colour>{'|'.join(NAMED)}|grey)"), _is_coloured),
    (re.compile(r"what is (?P<phrase>.+)"), _what),
)


def _referred(phrase: str, ask: Ask) -> Reasoning | None:
    """A grounding text that is one noun phrase, where it means just the targets."""
    found = ask.find(phrase)
    if found is None or {o.id for o in found.objects} != set(ask.sample.object_ids):
        return None
    return Reasoning(found.words, None)


def _mentioned(ask: Ask) -> Reasoning:
    """The objects that the question names, else those it is about, else the room's largest."""
    room, sample = ask.room, ask.sample
    named = [o for o in room.scene.objects if o.id in identifiers(sample.question)]
    parts = [f"{identifier(o.id)} {_described(room, o)}" for o in named[:_MAX_MENTIONS]]
    parts += [_label(room, label) for label in room.mentioned(sample.question)[: _MAX_MENTIONS - len(parts)]]
    said = set(identifiers(" ".join(parts)))
    if sample.task != "grounding":
        # The answer to a grounding text names its targets anyway.
        targets = [o for o in room.scene.objects if o.id in sample.object_ids and o.id not in said]
        parts += [f"{o.label} {identifier(o.id)}" for o in targets[:_MAX_MENTIONS]]
    if not parts:
        largest = sorted(room.things, key=lambda o: (-o.box.volume, o.id))[:3]
        parts = [f"{o.label} {identifier(o.id)}" for o in largest] or ["nothing"]
    return Reasoning(f"{' '.join(parts)} {SO}", None)


def _label(room: Room, label: str) -> str:
    """A label with all its objects, and the colour of a single one."""
    objects = room.labels[label]
    colour = room.colour(objects[0]) if len(objects) == 1 else None
    return f"{label} {names(objects)}" + (f" {colour}" if colour else "")


def _described(room: Room, thing: SceneObject) -> str:
    return " ".join(word for word in (room.colour(thing), thing.label) if word)
