"""Every night: the pipeline brought up to date, and its model promoted if it is better."""

from typing import Any

import httpx
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.checkout import Source
from flows.pipeline import Wish, follow, opened
from flows.promotion import judge, promote, promoted
from flows.reproduce import CONCURRENT_STAGES
from flows.stage import RETRIES, WAIT_S
from r1pipe.errors import DataError
from r1pipe.params import Params
from r1pipe.params.flows import Gate


@flow(name="nightly", task_runner=ThreadPoolTaskRunner(max_workers=CONCURRENT_STAGES))  # type: ignore[arg-type]
def nightly(overrides: tuple[str, ...] = (), source: Source | None = None) -> None:
    """Bring the pipeline up to date; tag its model if it beats the promoted one by `flows.gate`.

    Args:
        overrides: as in `reproduce`.
        source: as in `reproduce`.
    """
    with opened(source, overrides):
        follow(Wish(overrides), source)
        params = Params.load()
        promote_if_better(params.flows.gate, params, source.repository if source else None)


def network_was_away(_: Any, __: Any, state: State[Any]) -> bool:
    """Whether to try again: not where the data are wrong, nor where Prefect did not hear of what is done."""
    return not isinstance(state.result(raise_on_failure=False), DataError | httpx.HTTPError)


@task(task_run_name="gate", retries=RETRIES, retry_delay_seconds=WAIT_S, retry_condition_fn=network_was_away)
def promote_if_better(gate: Gate, params: Params, repository: str | None) -> None:
    """Compare, tag, and say so."""
    verdict = judge(gate, params, promoted())
    hear = get_run_logger().info
    version = promote(repository, verdict.sentence, hear) if verdict.promoted else None
    hear(f"{verdict.sentence} Tagged {version}." if version else verdict.sentence)
    title = f"Promoted as `{version}`" if version else "Not promoted"
    create_markdown_artifact(f"## {title}\n\n{verdict.sentence}", key="promotion")
