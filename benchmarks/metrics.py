"""Seconds to score 5,000 captions (about 12,500 references), to resample them, and to overlap boxes.

Budgets: 3 s without METEOR, 10 s for 1,000 bootstrap resamples of all metrics. Baseline: pycocoevalcap 1.2 on the same captions where it and
Java are installed, and whether it gives the same numbers; else what it took on two cores of such a machine.
"""

import importlib.util
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from r1pipe.errors import MissingError
from r1pipe.geometry import iou
from r1pipe.metrics.captions import Corpus, bleu, bleu_statistics, cider_d, rouge_l
from r1pipe.metrics.intervals import Measure, intervals
from r1pipe.metrics.meteor import find_jar
from r1pipe.metrics.ngrams import ngrams
from r1pipe.metrics.tokens import tokenize

NUM_CAPTIONS = 5000
RESAMPLES = 1000
BASELINE_S = {"tokens": 0.5, "BLEU": 0.6, "CIDEr-D": 2.0, "ROUGE-L": 0.5}
TEXT = """
the a chair table lamp bed sofa desk shelf window door is it stands near next to left of right behind front brown white black
red large small wooden tall in corner room with and on top isn't there's l-shaped, wall.
"""
WORDS = TEXT.split()


def sentence(rng: random.Random) -> str:
    """Five to twenty-five words."""
    return " ".join(rng.choices(WORDS, k=rng.randint(5, 25)))


def stopwatch(seconds: dict[str, float]) -> Callable[[str, Callable[[], Any]], Any]:
    """A function that runs some work and notes its seconds under a name."""

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - start
        return result

    return timed


def reference_scores(candidates: list[str], references: list[list[str]], seconds: dict[str, float]) -> list[float]:
    """Pycocoevalcap's BLEU-1..4, CIDEr and ROUGE-L of the raw captions, with its seconds."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    timed = stopwatch(seconds)
    known = {i: [{"caption": text} for text in texts] for i, texts in enumerate(references)}
    said = {i: [{"caption": text}] for i, text in enumerate(candidates)}
    gts, res = timed("tokens", lambda: (PTBTokenizer().tokenize(known), PTBTokenizer().tokenize(said)))
    bleus = timed("BLEU", lambda: Bleu(4).compute_score(gts, res, verbose=0)[0])
    cider = timed("CIDEr-D", lambda: Cider().compute_score(gts, res)[0])
    return [*bleus, float(cider), float(timed("ROUGE-L", lambda: Rouge().compute_score(gts, res)[0]))]


def scoring_table(candidates: list[str], references: list[list[str]]) -> Corpus:
    """Seconds a metric, beside the baseline's, and whether the numbers are the same; the tokenised captions come back."""
    seconds: dict[str, float] = {}
    timed = stopwatch(seconds)

    def tokens() -> Corpus:
        split = [[" ".join(tokenize(text)) for text in texts] for texts in references]
        return Corpus([" ".join(tokenize(text)) for text in candidates], split)

    corpus: Corpus = timed("tokens", tokens)
    bleus = timed("BLEU", lambda: bleu(bleu_statistics(corpus).sum(axis=0)))
    ciders = timed("CIDEr-D", lambda: cider_d(corpus))
    rouges = timed("ROUGE-L", lambda: rouge_l(corpus))
    baseline, same = dict(BASELINE_S), "not compared (no pycocoevalcap)"
    if importlib.util.find_spec("pycocoevalcap") is not None:
        theirs = reference_scores(candidates, references, baseline)
        gap = float(np.abs(np.array([*bleus, ciders.mean(), rouges.mean()]) - theirs).max())
        same = f"largest difference from pycocoevalcap {gap:.1e}"
    print(f"{'part':10}{'seconds':>9}{'baseline':>10}{'ratio':>7}")
    for name, spent in [*seconds.items(), ("all", sum(seconds.values()))]:
        base = baseline.get(name, sum(baseline.values()))
        print(f"{name:10}{spent:9.2f}{base:10.2f}{base / spent:7.1f}")
    print(f"budget 3 s: {'holds' if sum(seconds.values()) <= 3 else 'exceeded'}; {same}")
    return corpus


def bootstrap_table(corpus: Corpus) -> None:
    """Seconds to resample every metric, METEOR among them where its jar is."""
    try:
        jar = find_jar()
    except MissingError as error:
        print(error)
        jar = None
    seconds: dict[str, float] = {}
    timed = stopwatch(seconds)
    measures: dict[str, Measure] = timed("metrics", lambda: ngrams(corpus.candidates, corpus.references, jar=jar))
    found = timed("bootstrap", lambda: intervals(measures, resamples=RESAMPLES, seed=0))
    print(
        f"\n{len(found)} metrics {seconds['metrics']:.2f} s, {RESAMPLES} resamples of them {seconds['bootstrap']:.2f} s"
    )
    print(f"budget 10 s: {'holds' if seconds['bootstrap'] <= 10 else 'exceeded'}")


def boxes_table() -> None:
    """Microseconds a pair of boxes."""
    rng = np.random.default_rng(0)
    boxes = np.c_[rng.normal(0, 0.3, (300, 3)), rng.uniform(0.5, 2, (300, 3))]
    turned = np.c_[boxes[:40], rng.uniform(-3, 3, (40, 3))]
    print(f"\n{'IoU':14}{'us a pair':>10}")
    for name, some in (("axis-aligned", boxes), ("yaw", turned[:, :7]), ("9-DoF", turned)):
        start = time.perf_counter()
        iou(some, some)
        print(f"{name:14}{1e6 * (time.perf_counter() - start) / len(some) ** 2:10.2f}")


def main() -> None:
    """Print the tables."""
    rng = random.Random(0)
    references = [[sentence(rng) for _ in range(rng.randint(1, 4))] for _ in range(NUM_CAPTIONS)]
    candidates = [" ".join(w if rng.random() > 0.3 else rng.choice(WORDS) for w in r[0].split()) for r in references]
    bootstrap_table(scoring_table(candidates, references))
    boxes_table()


if __name__ == "__main__":
    main()
