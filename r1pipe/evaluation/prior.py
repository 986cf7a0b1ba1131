"""The answer that a question's first words suggest: what a model must beat to have looked at anything.

Each question gets the most frequent answer, in the file that it learns from, to questions that begin with the same three
words; to a beginning that it never saw, the most frequent answer of all. No scene and no situation is read.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from r1pipe.errors import DataError
from r1pipe.evaluation.rows import such_as
from r1pipe.evaluation.submissions import Row, Submission, pair

NUM_WORDS = 3
"""Of a question's beginning."""


def beginning(question: str) -> tuple[str, ...]:
    """A question's first three words, lower case.

    >>> beginning("What is the color of the table?")
    ('what', 'is', 'the')
    """
    return tuple(question.lower().split()[:NUM_WORDS])


def prior_answers(learnt_from: Submission, asked: Submission) -> Submission:
    """An answer to every question of a file, learnt from another one; the earlier answer wins where two are as frequent.

    Raises:
        DataError: if rows have no question, or none has an answer to learn from.
    """
    by_beginning: dict[tuple[str, ...], Counter[str]] = {}
    overall: Counter[str] = Counter()
    for question, answers in _lessons(learnt_from.rows):
        by_beginning.setdefault(beginning(question), Counter()).update(answers)
        overall.update(answers)
    if not overall:
        raise DataError("Expected questions with answers to learn a prior from, found none.")
    everywhere = overall.most_common(1)[0][0]
    _, named = pair(Submission("", []), asked)
    answered = []
    for row in named.rows:
        counts = by_beginning.get(beginning(_question(row)))
        answered.append({"id": row["id"], "answer": counts.most_common(1)[0][0] if counts else everywhere})
    return Submission(
        f"three-word prior, learnt from {len(learnt_from.rows)} rows of {learnt_from.recognised}", answered
    )


def _lessons(rows: Sequence[Row]) -> Iterator[tuple[str, list[str]]]:
    for row in rows:
        yield _question(row), list(row.get("answers") or ())


def _question(row: Row) -> str:
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        names = such_as([row["id"] if "id" in row else row["ids"][0] if "ids" in row else "a row without id"])
        raise DataError(f"Expected a question in every row for the prior baseline, found none{names}.")
    return question
