"""Scenes over a Ray cluster: the same bytes as here, and errors that name their scene."""

import os
import pickle
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_encoders import ENCODE, write_stages

from r1pipe.errors import MissingError
from r1pipe.models.encoders.cluster import MAX_RESTARTS, spread
from r1pipe.models.encoders.encoding import Encoders, Job
from r1pipe.scenes.scene import scene_ids

HAS_RAY = find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="ray is not installed: pip install 'r1pipe[cluster]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_stages(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def encoders(folder):
    return Encoders.load(folder / "backbones", ENCODE)


@pytest.fixture(scope="module")
def address():
    """Two nodes of one CPU each, on this machine."""
    from ray.cluster_utils import Cluster

    here = Path(__file__).parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{here}{os.pathsep}{here.parent}")  # where workers find the functions below
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        cluster.add_node(num_cpus=1)
        yield cluster.address
        cluster.shutdown()


@needs_ray
@pytest.mark.slow
def test_a_cluster_of_two_nodes_writes_the_bytes_that_this_machine_writes(address, folder, encoders, tmp_path):
    here = Job(encoders, None, folder / "scenes", folder / "views", tmp_path / "here")
    there = Job(encoders, None, folder / "scenes", folder / "views", tmp_path / "there")
    ids = scene_ids(folder / "scenes")
    here.run(ids, processes=1)
    there.run(ids, processes=1, cluster=address)
    assert scene_ids(tmp_path / "there") == ids
    for scene_id in ids:
        name = f"{scene_id}.safetensors"
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


@needs_ray
@pytest.mark.slow
def test_a_missing_scene_is_named_as_it_is_here(address, folder, encoders, tmp_path):
    job = Job(encoders, None, folder / "scenes", folder / "views", tmp_path)
    with pytest.raises(MissingError, match=r"^Expected scene room9_00 at .*, found no such file\.$"):
        job.run(["room0_00", "room9_00"], processes=1, cluster=address)


def die(folder, scene_id, *, deaths):
    """Leave a file, but not before so many workers have died of it."""
    tried = len(list(folder.glob("death-*")))
    if tried < deaths:
        (folder / f"death-{tried}").touch()
        os._exit(1)
    (folder / scene_id).touch()


def divide(scene_id):
    raise ZeroDivisionError("no error of ours")


@needs_ray
@pytest.mark.slow
def test_a_worker_that_died_is_started_again_but_not_for_ever(address, tmp_path):
    with spread(partial(die, tmp_path, deaths=MAX_RESTARTS), ["one", "two"], address) as done:
        assert len(list(done)) == 2
    assert (tmp_path / "one").is_file() and (tmp_path / "two").is_file()
    with (
        spread(partial(die, tmp_path, deaths=99), ["three"], address) as done,
        pytest.raises(MissingError, match=r"survive scene three, found it dead after 2 restarts: .*\.$"),
    ):
        list(done)


@needs_ray
@pytest.mark.slow
def test_an_error_that_is_not_ours_keeps_its_trace_and_tells_its_scene(address):
    with spread(divide, ["one"], address) as done, pytest.raises(ZeroDivisionError) as error:
        list(done)
    assert "in divide" in str(error.value) and error.value.__notes__ == ["This was scene one."]


@needs_ray
def test_an_address_where_nobody_listens_is_refused_at_once():
    with (
        pytest.raises(MissingError, match=r"Ray cluster at 127\.0\.0\.1:9, found none: .*refused"),
        spread(print, ["one"], "127.0.0.1:9"),
    ):
        pass


def test_a_cluster_without_ray_installed_says_what_to_install(monkeypatch, folder, encoders, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    job = Job(encoders, None, folder / "scenes", folder / "views", tmp_path)
    with pytest.raises(MissingError, match=r"pip install 'r1pipe\[cluster\]'"):
        job.run(["room0_00"], processes=1, cluster="auto")


def test_encoders_travel_by_name(encoders):
    packed = pickle.dumps(encoders)
    assert len(packed) < 1000
    assert pickle.loads(packed).params == ENCODE
