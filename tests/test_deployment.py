"""What deploys the flows: prefect.yaml, and the job template of a Kubernetes pool against what Prefect ships of its own."""

import json
import re
from pathlib import Path

import prefect
import pytest
import yaml
from jsonschema import Draft202012Validator
from prefect.client.orchestration import get_client
from tiny_flows import ROOT

from flows.server import REPORTED, make_automations
from r1pipe.params import Params


def test_every_deployment_names_a_flow_and_a_pool_that_the_server_makes():
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        file, name = deployment["entrypoint"].split(":")
        assert f"def {name}(" in (ROOT / file).read_text()
        assert deployment["work_pool"]["name"] in ("r1pipe-cpu", "r1pipe-gpu")


TEMPLATE = json.loads((ROOT / "deploy/kubernetes-job.json").read_text())


def test_the_job_template_declares_what_it_fills_in():
    variables = TEMPLATE["variables"]
    filled = set(re.findall(r"{{ (\w+) }}", json.dumps(TEMPLATE["job_configuration"])))
    assert filled == set(variables["properties"])
    Draft202012Validator.check_schema(variables)
    Draft202012Validator(variables).validate(
        {name: row["default"] for name, row in variables["properties"].items() if "default" in row}
    )


def test_the_job_template_keeps_what_prefect_s_worker_insists_on():
    """The worker refuses a job that lacks, or has other than, the fixed values of its own template."""
    folder = Path(prefect.__file__).parent / "server/api/collections_data/views"
    known = json.loads((folder / "aggregate-worker-metadata.json").read_text())
    theirs = known["prefect-kubernetes"]["kubernetes"]["default_base_job_configuration"]["job_configuration"]
    ours = dict(leaves(TEMPLATE["job_configuration"]["job_manifest"]))
    fixed = {path: value for path, value in leaves(theirs["job_manifest"]) if "{{" not in str(value)}
    assert fixed.items() <= ours.items()


def leaves(value, path=()):
    rows = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if rows is None:
        yield path, value
    else:
        for key, inner in rows:
            yield from leaves(inner, (*path, key))


@pytest.mark.slow
def test_failures_are_reported_until_the_webhook_is_set_to_nothing():
    from prefect.testing.utilities import prefect_test_harness  # the whole server: no other test needs it

    settings = Params.load(ROOT / "params.yaml").flows
    with prefect_test_harness(), get_client(sync_client=True) as client:
        reported = []
        for webhook in (None, "http://127.0.0.1:9/first", "http://127.0.0.1:9/second", None, ""):
            make_automations(client, settings, webhook)
            reported.append(len(client.read_automations_by_name(REPORTED)))
    assert reported == [0, 1, 1, 1, 0]
