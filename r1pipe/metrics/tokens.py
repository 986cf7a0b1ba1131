"""PTB tokens, as coco-caption's scorers see them, without Java.

Reproduces `edu.stanford.nlp.process.PTBTokenizer -preserveLines -lowerCase` (CoreNLP 3.4.1) followed by coco-caption's
removal of punctuation, on English prose: contractions, possessives, abbreviations, acronyms, numbers, quotes and brackets.
"""

import re
from functools import lru_cache

PUNCTUATION = frozenset(
    ("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";")
)
"""What coco-caption drops. The brackets are in upper case there, tokens in lower: a bracket therefore stays."""

_ABBREVIATIONS = (
    "adm|al|ala|apr|ariz|assn|assoc|atty|aug|ave|bldg|blvd|bros|calif|capt|cf|cmdr|co|col|colo|comdr|conn|corp|cpl|"
    "dec|dept|det|dr|drs|esq|est|etc|feb|fla|fri|ft|gen|gov|hon|inc|ind|intl|jan|jr|jul|kan|ky|lieut|lt|ltd|maj|mar|"
    "md|messrs|mfg|mich|minn|mo|mon|mont|mr|mrs|ms|mt|natl|neb|nev|nov|oct|okla|penn|ph|pres|prof|pvt|rd|rep|reps|"
    "rev|sen|sens|sep|sept|sgt|spc|sq|sr|st|ste|supt|tenn|thu|thurs|treas|tue|tues|univ|va|vs|vt|wed|wis|wyo"
)
"""They keep their full stop, also at the end of a line."""
_COUNTED = r"(?:nos?|figs?|pp?)"
"""Abbreviations only before a number."""
_SPLIT_WORDS = {
    "cannot": "can not",
    "gonna": "gon na",
    "gotta": "got ta",
    "wanna": "wan na",
    "lemme": "lem me",
    "gimme": "gim me",
    "'tis": "'t is",
    "'twas": "'t was",
}
_REWRITTEN = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", '"': "''",
    "&amp;": "&", "£": "#", "€": "$", "¢": "cents", "¾": "3/4", "½": "1/2", "¼": "1/4",
}  # fmt: skip
_STRAIGHT = str.maketrans(
    {
        "\u2019": "'", "\u2018": "`", "\u201c": '"', "\u201d": '"', "\x91": "`", "\x92": "'", "\x93": '"', "\x94": '"',
        "\u00ab": '"', "\u00bb": '"', "\u2039": "`", "\u203a": "'",
    }
)  # fmt: skip
_NUMERALS = r"²³¹¼-¾⁰-₉⅐-⅞"
"""Python takes them for parts of a word, CoreNLP for signs."""
_LETTER = rf"[^\W\d_{_NUMERALS}]"
_WORD = rf"[^\W_{_NUMERALS}]+(?:_+[^\W_{_NUMERALS}]+)*"
_APOSTROPHIC = (
    r"'(?:[2-9]0s|em|cause|till?)(?!\w)|(?:ol'|c'mon|cont'd|nor'easter|e'er|s'mores|ev'ry|li'l|nat'l|d'you|d'ye)(?!\w)|"
    rf"{_LETTER}+[aeiouy]'[aeiou]{_LETTER}*(?!\w)"
)
"""Words that keep their apostrophe."""
_CLITIC = r"n['`]t|'(?:s|m|d|ll|re|ve)"

_GLUE = "\uf8ff"
"""Stands for the no-break space that CoreNLP puts inside `5 1/2`, one token, until the words are apart."""

_TOKEN = re.compile(
    "|".join(
        (
            r"(?P<url>https?://[^\s\"<>]+|[\w.+-]+@[\w-]+(?:\.[\w-]+)*)",
            r"(?P<smiley>[<>]?[:;=][-o*']?[()dpo\\{@|\[\]](?![a-z]))",
            r"(?P<tag></?[a-z][^<>\s]*>|[#@][a-z]\w*)",
            rf"(?P<apostrophic>{_APOSTROPHIC}|\by'(?=all\b))",
            r"(?P<split>\b(?:cannot|gonna|gotta|wanna|lemme|gimme)\b|'t(?:is|was)\b)",
            rf"(?P<clitic>(?:{_CLITIC})(?!\w))",
            rf"(?P<abbreviation>\b(?:(?:{_LETTER}\.)+{_LETTER}(?![\w.])|(?:{_LETTER}\.){{2,}}|{_LETTER}\.(?=\d)|ph\.d\.|(?:{_ABBREVIATIONS})\.(?!\w)|{_COUNTED}\.(?=\d)|{_LETTER}\.(?!\w|\.\.)))",
            rf"(?P<mixed>\d+{_GLUE}\d+/\d+)",
            r"(?P<clock>\d+(?::\d+)+)",
            r"(?P<number>[-+]?\d*(?:[.,]\d+)+(?!\w)|\d+(?:[.,]\d+)+|(?<!\S)[-+]\d+\b)",
            rf"(?P<stem>{_WORD}?(?=n['`]t(?!\w)))",
            # A missing space after a full stop joins two words: CoreNLP takes them for a host's name.
            rf"(?P<host>{_LETTER}+(?:[.?!]{_LETTER}+)+(?![-/]))",
            rf"(?P<word>[od]'{_LETTER}{{2,}}|{_WORD}(?:[-/]{_WORD})*)",
            r"(?P<ellipsis>\.\.\.+|\u2026)",
            r"(?P<dash>--+|\u2014|\u2013)",
            r"(?P<run>[?!]+|#+|\*+|@+|_+|'n'?)",
            r"(?P<quote>\"|''|``)",
            r"(?P<other>&amp;|\S)",
        )
    )
)
"""The alternatives in order of precedence; what a later one may match, an earlier one has refused."""

_BEYOND = re.compile("[\U00010000-\U0010ffff]")
"""Emoji and whatever else lies beyond the first 65,536 characters: CoreNLP 3.4.1 drops it."""
_MIXED_FRACTION = re.compile(r"(?<![\w.,/:-])(\d+) (?=\d{1,4}/\d{1,4}(?![\w/]))")
_BEFORE_NUMBER = re.compile(rf"\b({_COUNTED})\.\s+(?=\d)")


def tokenize(text: str) -> list[str]:
    """The tokens of one text, lower case, without coco-caption's punctuation.

    >>> tokenize("The chair isn't left-most; it's (almost) next to the table.")
    ['the', 'chair', 'is', "n't", 'left-most', 'it', "'s", '-lrb-', 'almost', '-rrb-', 'next', 'to', 'the', 'table']
    """
    text = _BEFORE_NUMBER.sub(r"\1.", _BEYOND.sub("", text.lower()).translate(_STRAIGHT))
    text = _MIXED_FRACTION.sub(rf"\1{_GLUE}", text)
    return [token.replace(_GLUE, "\xa0") for chunk in text.split() for token in _chunk(chunk)]


@lru_cache(maxsize=1 << 16)
def _chunk(chunk: str) -> tuple[str, ...]:
    """The tokens between two spaces; words repeat, so most are looked up."""
    tokens = [token for match in _TOKEN.finditer(chunk) for token in _written(match)]
    return tuple(token for token in tokens if token not in PUNCTUATION)


def _written(match: re.Match[str]) -> list[str]:
    """The text of a match as CoreNLP writes it."""
    text = match[0]
    if match.lastgroup == "split":
        return _SPLIT_WORDS[text].split()
    if match.lastgroup == "smiley":
        return ["".join(_REWRITTEN.get(sign, sign) for sign in text)]
    return [
        _REWRITTEN.get(text, "..." if match.lastgroup == "ellipsis" else "--" if match.lastgroup == "dash" else text)
    ]
