"""`training.publish` that is killed or loses its network: nothing half is on the Hub, and the next push completes."""

import os
import shutil
import tempfile

import pytest
from safetensors.torch import load_file, save_file

from modeling_pianobind.index.folder_lock import folder_lock
from training.common.atomic_folder import temporary_folder
from training.publish import main

from ..hub_client import Client
from ..hub_server import HubServer
from ..test_hub import PUBLISH
from .killing import Killer
from .network import Network

KILLS, CUTS = 50, 6
ONLINE = {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
FIRST = {".gitattributes"}  # what the Hub itself puts into a new repository


class SlowHub(HubServer):
    """A Hub behind a slow network that can be cut."""

    def __init__(self, chunk_seconds):
        super().__init__()
        self.network = Network(self.http.server_port, chunk_seconds)
        self.url, self.storage_url = (f"http://{host}:{self.network.port}" for host in ("127.0.0.1", "localhost"))

    def __enter__(self):
        self.network.__enter__()
        return super().__enter__()

    def __exit__(self, *exception):
        super().__exit__(*exception)
        self.network.__exit__(*exception)

    def content(self, repo_id, revision="main") -> dict | None:
        """The files of a repository without the Hub's own, or None where there is no such repository or branch."""
        repository = self.repositories.get(("model", repo_id))
        if repository is None or revision not in repository.branches:
            return None
        files = repository.files(revision)
        return {path: self.objects[file.oid] for path, file in files.items() if path not in FIRST}


@pytest.fixture(scope="module")
def hub():
    with SlowHub(chunk_seconds=0.005) as hub:
        yield hub


class Push:
    """Publishes in a process that has imported what it needs, where a request that the network loses is repeated at
    once: `push(command)` is the exit status, `push.error` what it wrote on stderr."""

    def __init__(self, folder, hub):
        self.client = Client(folder, preload="import time; time.sleep = lambda seconds: None", **hub.environment())

    def __call__(self, command) -> int:
        status, self.error = self.client.run(PUBLISH, arguments=command)
        return status


@pytest.fixture(scope="module")
def push(hub, tmp_path_factory):
    push = Push(tmp_path_factory.mktemp("client"), hub)
    yield push
    push.client.close()


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path):
    """`checkpoint(number)` -> a folder of weights that the Hub has not seen."""

    def make(number):
        folder = tmp_path / f"checkpoint-{number}"
        shutil.copytree(tiny_checkpoint, folder)
        weights = {name: weight + float(number) for name, weight in load_file(folder / "model.safetensors").items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return make


def command_of(folder, repo_id, *more) -> list[str]:
    return [str(folder), "--repo-id", repo_id, "--licence", "cc0-1.0", "--private", *more]


def expected_of(command, folder) -> dict:
    """What a push has to bring to the Hub."""
    assert main([*command, "--dry-run", "--output", str(folder)]) == 0
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_a_killed_push_left_among_temporary_files_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = [tmp_path / f"pianobind-publish-{name}" for name in ("killed", "running", "young")]
    for folder in left:
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"cut o")
    for folder in left[:2]:
        os.utime(folder, (0, 0))
    with folder_lock(left[1]), temporary_folder("pianobind-publish-") as own:
        assert {*tmp_path.glob("pianobind-*")} == {left[1], left[2], own}
    assert {*tmp_path.iterdir()} == {left[1], left[2]}


def kill_often(hub, push, checkpoint, tmp_path, kills):
    """Kills a push twice, then lets it end; in turn to a new repository, to an existing one and to another branch."""
    sent, before, temporary = 0, hub.network.carried, tmp_path / "temporary"
    temporary.mkdir()

    def phase(pid):
        if hub.network.carried > before:
            return "talking to the Hub"
        return "writing the folder" if any(temporary.glob("pianobind-*")) else "starting"

    aims = [
        lambda: hub.network.carried > before,
        lambda: hub.network.carried > before + 0.3 * sent,
        lambda: hub.network.carried > before + 0.6 * sent,
        lambda: hub.network.carried > before + 0.9 * sent,
        lambda: hub.network.carried >= before + sent,
    ]
    killer = Killer("training.publish", phase, aims, hub.environment() | ONLINE | {"TMPDIR": str(temporary)})
    if kills > 1:
        killer.measure(lambda name: command_of(checkpoint(f"0.{len(name)}"), f"tester/{name}"))
        sent = (hub.network.carried - before) // 3
    for number in killer.starts(kills):
        turn = number // 2
        if number % 2 == 0:
            revision = "next" if turn % 3 == 2 else "main"
            repo_id = f"tester/killed-{turn if turn % 3 == 0 else 0}"
            folder = checkpoint(turn + 1)
            command = command_of(folder, repo_id, *(["--revision", revision] if revision != "main" else []))
            expected = expected_of(command, tmp_path / f"expected-{turn}")
            allowed = [None, {}, expected, hub.content(repo_id), hub.content(repo_id, revision)]
        before = hub.network.carried
        killer.kill(command)
        assert hub.content(repo_id, revision) in allowed
        for left in temporary.glob("pianobind-*"):
            shutil.rmtree(left)
        if number % 2 or killer.killed == kills:
            assert push(command) == 0
            assert hub.content(repo_id, revision) == expected
            assert hub.repositories["model", repo_id].private
            shutil.rmtree(folder)
    killer.close()
    return killer


def test_a_push_that_was_killed_is_completed_by_the_next(hub, push, checkpoint, tmp_path):
    killer = kill_often(hub, push, checkpoint, tmp_path, kills=1)
    assert killer.killed == 1


@pytest.mark.faults_long
def test_a_push_that_was_killed_fifty_times_is_completed_by_the_next(hub, push, checkpoint, tmp_path):
    hub.network.chunk_seconds = 0.03
    killer = kill_often(hub, push, checkpoint, tmp_path, KILLS)
    assert killer.phases["starting"] < KILLS / 2


@pytest.fixture
def sent(hub, push, checkpoint):
    """Bytes that the push of a new checkpoint sends: to a new repository, and to one that is there."""
    counts, name = [hub.network.carried], f"tester/there-{hub.network.carried}"
    for number in (10, 11):
        assert push(command_of(checkpoint(number + hub.network.carried), name)) == 0
        counts.append(hub.network.carried)
    return counts[1] - counts[0], counts[2] - counts[1]


@pytest.mark.parametrize("is_new", [True, False])
def test_a_network_cut_in_a_push_leaves_nothing_half_and_the_next_completes(
    hub, push, checkpoint, tmp_path, sent, is_new
):
    assert push(command_of(checkpoint(90 + is_new), "tester/old")) == 0
    for place in range(CUTS):
        repo_id = f"tester/cut-{place}" if is_new else "tester/old"
        command, before = command_of(checkpoint(100 + place + CUTS * is_new), repo_id), hub.content(repo_id)
        expected = expected_of(command, tmp_path / f"expected-{place}")
        hub.network.cut(after=sent[not is_new] * place // CUTS)
        assert push(command) == 2, place
        # A new repository may be left empty: made, and the network gone before it could be deleted.
        assert hub.content(repo_id) in (before, {}), place
        hub.network.mend()
        assert push(command) == 0
        assert hub.content(repo_id) == expected


def test_a_network_that_is_lost_is_one_line_that_says_what_is_on_the_hub(hub, push, checkpoint, sent):
    hub.network.cut(after=sent[0] // 2)
    push(command_of(checkpoint(200), "tester/lost"))
    hub.network.mend()
    [line] = [line for line in push.error.splitlines() if line.startswith("publish: tester/lost")]
    assert "the upload failed (" in line and "what is on the Hub could not be told or deleted" in line
    assert "Traceback" not in push.error


def test_a_network_that_comes_back_is_used_again(hub, push, checkpoint, tmp_path, sent):
    for place in range(0, CUTS, 2):
        command = command_of(checkpoint(300 + place), f"tester/again-{place}")
        hub.network.cut(after=sent[0] * place // CUTS, stays_down=False)
        status = push(command)
        hub.network.mend()
        assert status in (0, 2)
        if status:
            assert hub.content(f"tester/again-{place}") is None
            assert "the repository made for it is deleted again" in push.error or "nothing on the Hub" in push.error
            assert push(command) == 0
        assert hub.content(f"tester/again-{place}") == expected_of(command, tmp_path / f"expected-{place}")
