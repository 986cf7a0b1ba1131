"""What a run would ask, take and cost, before it does."""

from collections.abc import Iterable
from dataclasses import dataclass

from r1pipe.datasets import Sample
from r1pipe.params.chains import Gemini
from r1pipe.params.run import Think
from r1pipe.synthesis.ledger import Peek
from r1pipe.synthesis.money import Size, dollars, size_at_most
from r1pipe.synthesis.prompts import Prompts
from r1pipe.synthesis.request import Request
from r1pipe.synthesis.teacher import SceneOf

ANSWER_TOKENS = 250
"""Of reasoning and answer, where the ledger knows nothing of the model yet: five to eight sentences."""


@dataclass
class Estimate:
    """A run's size and price."""

    samples: int = 0
    references: int = 0
    """Samples whose task asks for no reasoning: they cost nothing."""

    kept: int = 0
    """Requests whose reply is in the ledger."""

    requests: int = 0
    """Requests still to make; second ones are counted for every first."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    """As the ledger's answers took on average, else thinking budget and a typical answer."""

    output_tokens_at_most: int = 0
    dollars: float = 0.0
    dollars_at_most: float = 0.0
    minutes: float = 0.0
    """At the limiter's rate; of a batch, none can tell."""


def estimate(samples: Iterable[Sample], scene: SceneOf, prompts: Prompts, params: Gemini, think: Think) -> Estimate:
    """Write every prompt, send none.

    The second request's size is that of a prompt around a typical first answer, since there is no answer yet.
    """
    total = Estimate()
    with Peek(params.ledger) as ledger:
        usage = ledger.usage(params.model)
        typical = ANSWER_TOKENS + max(params.thinking_budget, 0)
        answer = usage.output_tokens // usage.requests if usage.requests else min(typical, params.max_output_tokens)
        for sample in samples:
            total.samples += 1
            if not think.on(sample.task):
                total.references += 1
                continue
            first = Request.of(prompts.first(sample, scene(sample.scene_id)), params)
            for request in (first, _second(sample, first, ledger, prompts, params)):
                if request is None or ledger.get(request.key) is not None:
                    total.kept += request is not None
                else:
                    _add(total, size_at_most(request), answer)
    for size, name in ((total.output_tokens, "dollars"), (total.output_tokens_at_most, "dollars_at_most")):
        setattr(total, name, dollars(Size(total.prompt_tokens, size), params, batch=params.batch))
    total.minutes = total.requests / params.requests_per_second / 60
    return total


def _second(sample: Sample, first: Request, ledger: Peek, prompts: Prompts, params: Gemini) -> Request | None:
    """The request that follows the first one; None where its reply leaves nothing to ask."""
    reply = ledger.get(first.key)
    if reply is None:
        return Request.of(prompts.second(sample, " word" * ANSWER_TOKENS), params)
    prompt = prompts.follow_up(sample, reply.text)
    return None if prompt is None else Request.of(prompt, params)


def _add(total: Estimate, size: Size, answer: int) -> None:
    total.requests += 1
    total.prompt_tokens += size.prompt_tokens
    total.output_tokens += answer
    total.output_tokens_at_most += size.output_tokens
