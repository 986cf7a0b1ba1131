"""Metrics against values worked out by hand, known examples, and coco-caption's own numbers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from r1pipe.errors import MissingError
from r1pipe.geometry import Box
from r1pipe.metrics.answers import clean_answer, match, match_any_word, match_leo, situated_type, unigram_f
from r1pipe.metrics.captions import Corpus, bleu, bleu_statistics, cider_d, rouge_l, smoothed_bleu
from r1pipe.metrics.dense import SILENCE, Caption, assign, candidates, unwrap, wrap
from r1pipe.metrics.grounding import box_iou, f1
from r1pipe.metrics.intervals import differences, intervals, mean
from r1pipe.metrics.meteor import find_jar, meteor
from r1pipe.metrics.retrieval import image_ranks, text_ranks, view_cosines
from r1pipe.metrics.tokens import tokenize
from r1pipe.metrics.wordnet import find_lemma

DATA = Path(__file__).parents[2] / "shared" / "data"


def corpus_bleu(candidate: str, *references: str) -> list[float]:
    return bleu(bleu_statistics(Corpus([candidate], [list(references)])).sum(axis=0)).tolist()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        pytest.param("The chair isn't left-most.", "the chair is n't left-most", id="contraction and hyphen"),
        pytest.param("It's the TV's, can't cannot", "it 's the tv 's ca n't can not", id="possessive and split words"),
        pytest.param("a (brown) [one] {x}", "a -lrb- brown -rrb- -lsb- one -rsb- -lcb- x -rcb-", id="brackets stay"),
        pytest.param("\"quoted\" and 'single'; yes -- no...", "quoted and single yes no", id="quotes and dashes go"),
        pytest.param("3.5 m, 2,000 cm, 50% at 12:30", "3.5 m 2,000 cm 50 % at 12:30", id="numbers"),
        pytest.param("mr. x sees it, e.g. no. 5.", "mr. x sees it e.g. no. 5", id="abbreviations"),
        pytest.param("what?! well!", "what ?! well", id="a run of marks is a token of its own"),
        pytest.param("### human: hi", "### human hi", id="signs in a row"),
        pytest.param("sos a chair. it is red eos", "sos a chair it is red eos", id="full stop in the middle"),
        pytest.param("table.the", "table.the", id="missing space"),
        pytest.param("5 1/2 feet, 3'x4' 5\u00a2", "5\u00a01/2 feet 3 x4 5 cents", id="mixed fraction, feet, cents"),
        pytest.param("'90s y'all c'mon 'cause rock'n'roll", "'90s y' all c'mon 'cause rock 'n' roll", id="apostrophes"),
        pytest.param("U.S.A, t.v. sets at 3 p.m. Ph.D.", "u.s.a t.v. sets at 3 p.m. ph.d.", id="acronyms"),
        pytest.param("smile :) and :-( here", "smile :-rrb- and :--lrb- here", id="smileys keep their bracket"),
        pytest.param(
            "chair\U0001f600 \u00abx\u00bb caf\u00e9 \u00bd", "chair x caf\u00e9 1/2", id="emoji goes, accents stay"
        ),
        pytest.param("<obj_003> a@b chair;table the/a", "<obj_003> a@b chair table the/a", id="tags and slashes"),
        pytest.param("", "", id="empty"),
        pytest.param("the\u2019s \u201cx\u201d \u2014 y\u2026", "the 's x y", id="typographic signs"),
    ],
)
def test_tokens_are_those_of_the_ptb_tokenizer(text, tokens):
    # Computed with CoreNLP 3.4.1. A mixed fraction is one token with a no-break space inside.
    assert tokenize(text) == [token for token in tokens.split(" ") if token]


def test_bleu_of_papineni_clips_repeated_words():
    one, *_ = corpus_bleu("the the the the the the the", "the cat is on the mat", "there is a cat on the mat")
    assert one == pytest.approx(2 / 7)


def test_bleu_of_papineni_prefers_the_first_candidate():
    references = (
        "it is a guide to action that ensures that the military will forever heed party commands",
        "it is the guiding principle which guarantees the military forces always being under the command of the party",
        "it is the practical guide for the army always to heed the directions of the party",
    )
    good = corpus_bleu("it is a guide to action which ensures that the military always obeys the commands of the party", *references)  # fmt: skip
    poor = corpus_bleu(
        "it is to insure the troops forever hearing the activity guidebook that party direct", *references
    )
    assert good[0] == pytest.approx(17 / 18)
    assert poor[0] == pytest.approx(8 / 14 * math.exp(1 - 16 / 14))
    assert good[3] == pytest.approx(0.5045666840058485, abs=1e-6)  # the value that NLTK documents
    assert poor[3] < 1e-3


def test_bleu_is_short_by_the_brevity_penalty():
    assert corpus_bleu("a b", "a b c d")[0] == pytest.approx(math.exp(1 - 4 / 2))


@pytest.mark.parametrize(
    ("candidate", "references", "value"),
    [
        pytest.param("a b c", ["a b c"], 1.0, id="identity"),
        pytest.param("a b", ["c d"], 0.0, id="nothing shared"),
        pytest.param("", ["a"], 0.0, id="empty candidate"),
        pytest.param("a b c d", ["a c"], 2.44 * 0.5 * 1 / (1 + 1.44 * 0.5), id="subsequence"),
        pytest.param(
            "a b", ["a x x x", "b"], 2.44 * 0.5 * 1 / (1 + 1.44 * 0.5), id="each side takes its best reference"
        ),
    ],
)
def test_rouge_l_by_hand(candidate, references, value):
    assert rouge_l(Corpus([candidate], [references]))[0] == pytest.approx(value)


def test_smoothed_bleu_equals_nltks():
    # sentence_bleu of nltk 3.10 with SmoothingFunction().method1 and PointLLM's weights, times 100.
    rows = {
        ("a red chair with four legs", "a red wooden chair with four legs"): [84.6482, 75.7116, 62.5601, 51.1508],
        ("red", "a red chair"): [13.5335, 4.2797, 2.9608, 2.4066],
        ("a lamp lamp lamp on the big desk", "the lamp on the desk stands"): [50.0, 37.7964, 29.1291, 14.7722],
        ("##", "a bed"): [0, 0, 0, 0],
        ("The chair", "the chair"): [50.0, 22.3607, 17.4044, 14.9535],
    }
    corpus = Corpus([said for said, _ in rows], [[known] for _, known in rows])
    found = 100 * smoothed_bleu(bleu_statistics(corpus))
    assert found == pytest.approx(np.array(list(rows.values())), abs=1e-4)


def test_cider_of_one_sample_is_zero_because_every_word_is_in_every_document():
    assert cider_d(Corpus(["a b c d"], [["a b c d"]])).tolist() == [0.0]


def test_cider_of_perfect_distinct_captions_is_ten():
    texts = ["a red chair stands here", "one blue lamp hangs there now"]
    assert cider_d(Corpus(texts, [[text] for text in texts])) == pytest.approx([10, 10])


def test_cider_lacks_what_short_captions_lack():
    # Words alone: the cosine is 1 for unigrams and 0 for the longer n-grams that a word does not have.
    assert cider_d(Corpus(["red", "blue"], [["red"], ["blue"]])) == pytest.approx([2.5, 2.5])


def test_caption_scores_equal_coco_caption():
    # Computed once with pycocoevalcap 1.2 on these five samples.
    candidates = [
        "a brown chair at the table",
        "the table is white",
        "a lamp",
        "",
        "the the bed is near the wall and window",
    ]
    references = [
        ["the brown chair is at the table", "a chair next to the table"],
        ["this is a white table", "the table is white and square"],
        ["a tall black lamp in the corner"],
        ["a red sofa", "the sofa is red"],
        ["the bed is near the wall", "a bed by the window"],
    ]
    corpus = Corpus(candidates, references)
    found = [*bleu(bleu_statistics(corpus).sum(axis=0)), cider_d(corpus).mean(), rouge_l(corpus).mean()]
    assert found == pytest.approx(COCO, abs=1e-9)


COCO = [
    0.6799080270033627,
    0.5749828580463155,
    0.5114385358995457,
    0.44780511455941446,
    2.2819405204253185,
    0.5529527698237519,
]


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        pytest.param("The 2 chairs.", "two chairs", id="article, digit, full stop"),
        pytest.param("tv", "TV", id="tv is upper case"),
        pytest.param("None", "zero", id="none is zero"),
        pytest.param("21", "21", id="21 stays"),
        pytest.param("23", "twenty-three", id="23 does not"),
        pytest.param("no1", "no", id="trailing digit of a word"),
        pytest.param("3 o' clock", "three o'clock", id="o'clock"),
        pytest.param("a", "a", id="an article alone stays"),
        pytest.param("walk backwards", "walk backward", id="backward"),
        pytest.param("  to   the letf ", "to left", id="spaces and spelling"),
    ],
)
def test_clean_answer_keeps_the_original_oddities(text, cleaned):
    assert clean_answer(text) == cleaned


@pytest.mark.parametrize(
    ("answer", "references", "expected", "leo", "any_word"),
    [
        pytest.param("red", ["red"], (True, True), (True, True), (True, True), id="equal"),
        pytest.param("dark red", ["red"], (False, True), (False, True), (False, True), id="contains"),
        pytest.param("red", ["darkred", "red"], (True, True), (False, True), (False, True), id="leo stops at the first partial match"),
        pytest.param("", ["red"], (False, False), (False, True), (False, True), id="leo takes the empty answer"),
        pytest.param("blue", ["red"], (False, False), (False, False), (False, False), id="different"),
        pytest.param("a red bed", ["red chair"], (False, False), (False, False), (False, True), id="one word in common"),
        pytest.param("darkred", ["red"], (False, True), (False, True), (False, False), id="what holds the reference is not in it"),
        pytest.param("red", ["blue", "red"], (True, True), (True, True), (False, False), id="only the first reference"),
    ],
)  # fmt: skip
def test_exact_and_refined_match(answer, references, expected, leo, any_word):
    assert match(answer, references) == expected
    assert match_leo(answer, references) == leo
    assert match_any_word(answer, references) == any_word


@pytest.mark.parametrize(
    ("answer", "references", "value"),
    [
        # Two of three words are in the reference, and two of its four in the answer: P 2/3, R 1/2.
        pytest.param("two red chairs", ["red chair by windows"], 4 / 7, id="by lemma"),
        pytest.param("chairs", ["red chair by windows", "a chair"], 2 / 3, id="the best reference"),
        pytest.param("chair chair", ["chair"], 1.0, id="a repeated word counts each time"),
        pytest.param("Left of it", ["right", "Left of it"], 1.0, id="exact"),
        pytest.param("bed", ["chair"], 0.0, id="nothing in common"),
        pytest.param("", ["chair"], 0.0, id="empty"),
    ],
)
def test_scanqas_f_value_by_hand(answer, references, value):
    assert unigram_f(answer, references, lambda word: word.removesuffix("s")) == pytest.approx(value)


def test_wordnets_lemmas_are_there_or_say_what_is_missing(monkeypatch):
    try:
        lemma = find_lemma()
    except MissingError as error:
        assert "WordNet" in str(error)
    else:
        assert [lemma(word) for word in ("chairs", "shelves", "was", "left")] == ["chair", "shelf", "wa", "left"]


def test_a_situated_question_has_the_type_of_its_first_word():
    assert [situated_type(q) for q in (" What is it?", "Is it?", "Where?")] == ["what", "is", "other"]


CUBE = Box(0, 0, 0, 2, 2, 2)


@pytest.mark.parametrize(
    ("predicted", "value"),
    [
        pytest.param([CUBE], 1.0, id="the same box"),
        pytest.param([Box(0, 0, 0, 2, 2, 1)], 0.5, id="half of it is exactly 0.5"),
        pytest.param([Box(0, 0, 0, 2, 2, 0.5)], 0.25, id="a quarter is exactly 0.25"),
        pytest.param([Box(5, 0, 0, 2, 2, 2), CUBE], 0.0, id="the first box counts"),
        pytest.param([], 0.0, id="no box"),
        pytest.param([Box(math.nan, 0, 0, 2, 2, 2)], 0.0, id="not a number"),
    ],
)
def test_the_predicted_box_overlaps_by(predicted, value):
    assert box_iou(predicted, CUBE) == value


@pytest.mark.parametrize(
    ("predicted", "targets", "value"),
    [
        pytest.param([], [], 1.0, id="no target, no prediction"),
        pytest.param([CUBE], [], 0.0, id="no target, a prediction"),
        pytest.param([], [CUBE], 0.0, id="missed"),
        pytest.param([CUBE, CUBE], [CUBE], 2 / 3, id="a duplicate costs precision"),
        pytest.param([CUBE], [CUBE, Box(9, 0, 0, 1, 1, 1)], 2 / 3, id="one of two"),
        pytest.param([Box(0, 0, 0, 2, 2, 0.5)], [CUBE], 1.0, id="the threshold itself is a hit"),
    ],
)
def test_f1_of_a_query(predicted, targets, value):
    assert f1(predicted, targets, 0.25) == pytest.approx(value)


def test_f1_matches_for_the_best_sum_of_overlaps():
    shifted = Box(0, 0, 0.5, 2, 2, 2)
    assert f1([shifted, CUBE], [CUBE, shifted], 0.5) == 1.0


def test_each_object_hears_the_caption_that_overlaps_it_most():
    captions = [Caption(Box(0, 0, 0, 2, 2, 1), "half"), Caption(CUBE, "whole"), Caption(CUBE, "late")]
    far = Box(9, 9, 9, 1, 1, 1)
    assert [(s.text, s.iou) for s in assign(captions, [CUBE, far])] == [("whole", 1.0), ("half", 0.0)]
    assert assign([], [CUBE]) == [SILENCE]


@pytest.mark.parametrize(("by_centre", "texts"), [(False, [["half", "whole"], []]), (True, [["half"], ["whole"]])])
def test_a_caption_may_choose_its_object_by_overlap_or_by_centre(by_centre, texts):
    captions = [Caption(Box(0, 0, -0.5, 2, 2, 1), "half"), Caption(Box(0, 0, 1.6, 2, 2, 6), "whole")]
    above = Box(0, 0, 2, 0.1, 0.1, 0.1)
    spoken = candidates(captions, [CUBE, above], by_centre=by_centre)
    assert [[item.text for item in some] for some in spoken] == texts


def test_a_sentence_is_wrapped_once():
    assert wrap(unwrap("sos a  chair eos")) == wrap("a  chair") == "sos a  chair eos"


def test_the_interval_of_a_mean_is_about_two_standard_errors():
    scores = np.r_[np.ones(300), np.zeros(100)]
    found = intervals({"em": mean(scores)}, resamples=2000, seed=0)["em"]
    error = 100 * math.sqrt(0.75 * 0.25 / 400)
    assert (found.value, found.n) == (75.0, 400)
    assert found.low == pytest.approx(75 - 1.96 * error, abs=0.5)
    assert found.high == pytest.approx(75 + 1.96 * error, abs=0.5)


def test_the_same_seed_gives_the_same_interval_and_another_another():
    measures = {"em": mean(np.arange(50) % 3 == 0)}
    first, again, other = (intervals(measures, resamples=200, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_a_group_counts_only_its_own_samples():
    found = intervals({"g": mean(np.array([1.0, 0.0, 0.0]), np.array([True, False, False]))}, resamples=50, seed=0)["g"]
    assert found == (100.0, 100.0, 100.0, 1)


def test_a_model_does_not_differ_from_itself():
    measures = {"em": mean(np.arange(40) % 2 == 0)}
    assert differences(measures, measures, resamples=100, seed=0)["em"] == (0.0, 0.0, 0.0, 40)


@pytest.mark.skipif(not (DATA / "threedllm").is_dir(), reason="needs the 3D-LLM files in shared/data")
def test_real_answers_scored_against_themselves_are_perfect():
    rows = json.loads((DATA / "threedllm" / "3d_llm_embodied_question_answer_val.json").read_text())
    texts = [" ".join(tokenize(row["answers"][0])) for row in rows[:300]]
    corpus = Corpus(texts, [[text] for text in texts])
    assert bleu(bleu_statistics(corpus).sum(axis=0)) == pytest.approx(1, abs=1e-6)
    assert rouge_l(corpus).mean() == 1


def segment(length, function, matched, chunks):
    """METEOR statistics of a segment whose words all match exactly, the same on both sides."""
    stages = [matched - function, matched - function, function, function] + [0] * 12
    return np.array([length, length, function, function, *stages, chunks, matched, matched], dtype=np.float64)


def test_meteor_of_sums_by_hand():
    # 4 of 6 words match, 2 of the matches and 2 of all words are function words: (.75*2 + .25*2) / (.75*4 + .25*2).
    f_mean = 2.0 / 3.5
    penalty = 0.6 * (2 / 4) ** 0.2
    assert meteor(segment(6, 2, 4, 2)) == pytest.approx(f_mean * (1 - penalty))
    assert meteor(np.zeros(23)) == 0
    both = segment(6, 2, 4, 2) + segment(5, 1, 5, 0)  # the second matches whole: no chunk
    assert meteor(np.stack([both, both])).shape == (2,)
    assert meteor(both) == pytest.approx((2 + 3.25) / (3.5 + 3.25) * (1 - 0.6 * (2 / 9) ** 0.2))


def test_without_its_jar_meteor_says_why(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingError, match="Java"):
        find_jar()
    (tmp_path / "java").write_text("#!/bin/sh\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("R1PIPE_METEOR", str(tmp_path / "meteor-1.5.jar"))
    with pytest.raises(MissingError, match=r"jar at .*R1PIPE_METEOR"):
        find_jar()
    (tmp_path / "meteor-1.5.jar").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "paraphrase-en.gz").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(MissingError, match="Git LFS pointer"):
        find_jar()


RIGHT = np.eye(3)[:, None].repeat(2, axis=1)
"""Three objects of two views each, found without doubt."""


def test_a_caption_finds_the_views_of_its_object():
    texts = np.eye(3)
    assert view_cosines(texts, RIGHT).tolist() == [1, 1, 1]
    assert image_ranks(texts, RIGHT).tolist() == [[0, 0]] * 3
    assert text_ranks(texts, RIGHT).tolist() == [0] * 3
    assert image_ranks(texts[[1, 0, 2]], RIGHT)[:, 0].tolist() == [2, 2, 0]


def test_one_caption_for_all_objects_finds_none():
    same = np.full((3, 3), 3**-0.5)
    assert image_ranks(same, RIGHT).min() == 2
