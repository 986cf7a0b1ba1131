"""Every night: the pipeline brought up to date, and its model promoted if it is better."""

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.task_runners import ThreadPoolTaskRunner

from flows.checkout import Source
from flows.pipeline import Wish, follow, opened
from flows.promotion import judge, promote, promoted
from flows.reproduce import CONCURRENT_STAGES
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


@task(task_run_name="gate")
def promote_if_better(gate: Gate, params: Params, repository: str | None) -> None:
    """Compare, tag, and say so."""
    verdict = judge(gate, params, promoted())
    version = promote(repository, verdict.sentence) if verdict.promoted else None
    get_run_logger().info("%s %s", verdict.sentence, f"Tagged {version}." if version else "")
    title = f"Promoted as `{version}`" if version else "Not promoted"
    create_markdown_artifact(f"## {title}\n\n{verdict.sentence}", key="promotion")
