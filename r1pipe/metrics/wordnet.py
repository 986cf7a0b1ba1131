"""WordNet's lemmas by nltk, as ScanQA's F-value wants them: an optional extra that needs WordNet's data."""

from collections.abc import Callable
from importlib.util import find_spec

from r1pipe.errors import MissingError


def find_lemma() -> Callable[[str], str]:
    """A word's noun lemma.

    Raises:
        MissingError: without nltk or WordNet's data; the sentence is the reason why a score is null.
    """
    if find_spec("nltk") is None:
        raise MissingError("Expected nltk for WordNet's lemmas (the extra `wordnet`), found none.")
    from nltk.corpus import wordnet  # optional
    from nltk.stem import WordNetLemmatizer

    try:
        wordnet.ensure_loaded()
    except (LookupError, OSError):
        raise MissingError(
            "Expected WordNet's data where nltk looks for it (`python -m nltk.downloader wordnet`), found none or a part."
        ) from None
    lemmatizer = WordNetLemmatizer()
    return lambda word: str(lemmatizer.lemmatize(word))
