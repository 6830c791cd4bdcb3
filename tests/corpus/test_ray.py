"""The same run on a Ray cluster of two workers on this machine."""

import logging
import signal
import sys
from functools import partial
from pathlib import Path

import corpora
import families
import psutil
import pytest
import torch

import iglens
from iglens.corpus import Columns, Selection, Store, run
from iglens.corpus.ray_engine import Cluster, fill_on_ray, settings_on_ray
from iglens.corpus.read import open_input
from iglens.corpus.run import Job
from iglens.errors import ArgumentError, IGLensError, OutputError
from iglens.explaining import Reader

# Ray warns of its own settings, and leaves sockets to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

SMALL = Selection(shard_rows=6)
TWO = Cluster(concurrency=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tiny model as a folder, which workers load."""
    path = tmp_path_factory.mktemp("model")
    families.build("llama").save_pretrained(path)
    families.tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def cluster():
    """Two processors of Ray's, here."""
    import ray

    there = {"env_vars": {"PYTHONPATH": str(Path(corpora.__file__).parent)}}
    ray.init(
        num_cpus=2,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env=there,
    )
    yield
    ray.shutdown()


def job(corpus, **changes):
    return Job(open_input(str(corpus)), Columns(), SMALL, Reader(), **changes)


def on_ray(folder, corpus, path, progress=lambda *_: None, part=(1, 1)):
    """A whole run on the cluster."""
    load = partial(corpora.load, str(folder))
    asked = job(corpus)
    store = Store.open(path, settings_on_ray(asked, load, TWO))
    return fill_on_ray(asked, load, store, TWO, part, progress)


@pytest.fixture
def alone(folder, corpus, tmp_path):
    """The store of a local run, with one thread as a worker has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        decoder = iglens.Decoder.from_pretrained(str(folder))
        run(decoder, corpus, tmp_path / "alone", selection=SMALL)
    finally:
        torch.set_num_threads(threads)
    return corpora.contents(tmp_path / "alone")


def workers():
    """Processes that hold a model."""
    mine = psutil.Process().children(recursive=True)
    return [each for each in mine if "MapWorker" in " ".join(_command(each))]


def _command(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.slow
def test_equals_the_local_run(cluster, folder, corpus, tmp_path, alone):
    told = []
    outcome = on_ray(
        folder, corpus, tmp_path / "ray", lambda *told_: told.append(told_[1])
    )
    assert outcome.complete
    assert corpora.contents(tmp_path / "ray") == alone
    assert told == sorted(told)
    assert told[-1] == outcome.n_rows == 42
    assert len(told) > 2  # as shards are done, not at the end


@pytest.mark.slow
def test_a_worker_is_killed(cluster, folder, corpus, tmp_path, alone):
    """Its shard is made by another, and nothing is lost or made twice."""
    killed = []

    def kill(stage, done, total):
        if done and not killed:
            victim = workers()[0]
            victim.send_signal(signal.SIGKILL)
            killed.append(victim.pid)

    outcome = on_ray(folder, corpus, tmp_path / "ray", kill)
    assert killed
    assert outcome.complete
    assert corpora.contents(tmp_path / "ray") == alone


@pytest.mark.slow
def test_goes_on_with_a_local_run(cluster, folder, corpus, tmp_path, alone):
    """Half of the shards are there already, and stay."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    decoder = iglens.Decoder.from_pretrained(str(folder))
    first = run(decoder, corpus, tmp_path / "ray", selection=SMALL, part=(1, 2))
    torch.set_num_threads(threads)
    before = Store.load(tmp_path / "ray").shard_path(0).stat()
    outcome = on_ray(folder, corpus, tmp_path / "ray")
    assert outcome.n_found == first.n_rows
    assert Store.load(tmp_path / "ray").shard_path(0).stat() == before
    assert corpora.contents(tmp_path / "ray") == alone


@pytest.mark.slow
def test_what_goes_wrong_in_a_worker_is_told_as_here(cluster, corpus, tmp_path):
    load = partial(corpora.load, str(tmp_path / "nowhere"))
    with pytest.raises(IGLensError, match="nowhere") as caught:
        settings_on_ray(job(corpus), load, TWO)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_worker_refuses_another_model(cluster, folder, corpus, tmp_path):
    """Weights that were replaced between two commands would mix in one store."""
    load = partial(corpora.load, str(folder))
    asked = job(corpus)
    settings = settings_on_ray(asked, load, TWO)
    model = {**settings["model"], "id": "another"}
    store = Store.open(tmp_path / "ray", {**settings, "model": model})
    with pytest.raises(OutputError, match="another model than the run was begun"):
        fill_on_ray(asked, load, store, TWO)


@pytest.mark.slow
def test_no_machine_has_room(cluster, folder, corpus):
    load = partial(corpora.load, str(folder))
    with pytest.raises(ArgumentError, match="has 2 and 0"):
        settings_on_ray(job(corpus), load, Cluster(num_gpus=1.0))


def test_no_model():
    with pytest.raises(ArgumentError, match="at least 1 model"):
        Cluster(concurrency=0)


def test_without_ray(monkeypatch, corpus):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ArgumentError, match=r'pip install "iglens\[ray\]"'):
        settings_on_ray(job(corpus), lambda: None, TWO)
