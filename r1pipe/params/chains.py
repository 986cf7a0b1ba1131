"""The sections of chains of thought: who writes them (`synthesize`), what they must pass (`validate`)."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from r1pipe.params.section import Count, NonNegative, Positive, Section, Share, Split


class Faults(Section):
    """How often the scripted teacher commits each fault, as a share of the samples."""

    format: Share
    length: Share
    steps: Share
    target: Share
    consistency: Share


class Price(Section):
    """What a model costs, dollars a million tokens."""

    prompt: NonNegative
    output: NonNegative
    """Of the answer and of the service's own thinking."""


class Gemini(Section):
    """The teacher `gemini`, through google-genai; keys are in the environment (`r1pipe.synthesis.service`)."""

    model: str
    temperature: NonNegative
    thinking_budget: Annotated[int, Field(ge=-1)]
    """Tokens of the service's own thinking; -1 leaves the number to it."""

    max_output_tokens: Count
    """Thinking and answer together, as the service counts."""

    views: Annotated[int, Field(ge=0)]
    """Pictures of the room that go with a question; 0 for words alone."""

    requests_per_second: Positive
    """The quota of the key or project; repeated attempts count."""

    timeout_s: Positive
    attempts: Count
    """Of one request, where the service is busy or the connection breaks; then its sample is rejected as unavailable."""

    backoff_s: Positive
    """The wait before the second attempt; it doubles from one to the next, with jitter."""

    max_wait_s: Positive
    """The longest wait; a service that asks for a longer one stops the run."""

    batch: bool
    """Whether to ask in batch jobs: answers come within a day, at `batch_price` of the price."""

    batch_price: Share
    batch_poll_s: Positive
    """Between two looks at the jobs."""

    budget: Positive | None
    """Dollars that the ledger's requests may cost in all; null for no limit."""

    prices: dict[str, Price]
    """By model."""

    base_url: str | None
    """Another server that speaks its REST API; null for Google's."""

    ledger: Path
    """A SQLite file with every request and reply; no output of DVC's, because it is paid for."""

    @property
    def price(self) -> Price:
        """Of the model."""
        return self.prices[self.model]

    @model_validator(mode="after")
    def _has_a_price(self) -> Self:
        """Refuse a model whose cost nobody could tell."""
        if self.model not in self.prices:
            known = ", ".join(self.prices) or "none"
            raise ValueError(f"model {self.model} needs its price under synthesize.gemini.prices, which has {known}")
        return self


class Synthesize(Section):
    """Stage `synthesize`."""

    teacher: Literal["scripted", "gemini", "replay"]
    faults: Faults
    gemini: Gemini
    replay: Path | None
    """The JSONL file that the teacher `replay` repeats: `scene_id`, `question`, `cot`."""

    num_samples: Annotated[int, Field(ge=10)] | None
    """Samples of the train split to draft, of every source an equal share as far as it has them; of the val split a tenth
    as many. Always the same ones, and a larger number only adds. Null for all; so the teacher `replay` leaves none out."""

    concurrency: Count
    """Requests in flight at once."""

    def most(self, split: Split) -> int | None:
        """Samples of a split that are drafted at most; null for all."""
        if split == "test":
            return 0
        return self.num_samples if self.num_samples is None or split == "train" else self.num_samples // 10

    @model_validator(mode="after")
    def _replay_has_a_file(self) -> Self:
        """Refuse a teacher that has nothing to repeat."""
        if self.teacher == "replay" and self.replay is None:
            raise ValueError("teacher replay needs a file under synthesize.replay")
        return self


class Filters(Section):
    """What a chain of thought must be to be kept."""

    min_think_words: Count
    max_think_words: Count
    min_steps: Count
    min_answer_words: Count
    max_answer_words: Count
    consistency: Share
    """Least 1 - normalised Levenshtein distance between the answer and the one drawn from the reasoning alone."""


class Probe(Section):
    """Texts that the scripted teacher writes only to measure the filters; they are not kept."""

    samples: Annotated[int, Field(ge=0)]
    """How many; 0 measures nothing."""

    fault_rate: Share
    """The share with a fault, of each kind."""


class Validate(Section):
    """Stage `validate`."""

    filters: Filters
    max_reject_rate: Share
    """Above it the gate warns."""

    profile: Path | None
    """What `r1pipe profile` wrote; the gate warns of drift from it. In `profiles/`, so that DVC sees it change."""

    max_drift: Positive
    """The largest Kullback-Leibler divergence of a column from the profile, nats."""

    probe: Probe
