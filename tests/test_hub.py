"""Real traffic with a Hub on the loopback, by xet and by LFS; `hub_server.py` says which endpoints it has.

The libraries run unchanged in two processes of their own: `client` has the package, `stranger` has not.
"""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from modeling_pianobind import embed_audio, embed_midi, embed_text

from .hub_client import Client
from .hub_server import HubServer
from .test_publish import LOAD_AND_EMBED, publish

TEXT = "calm, slow, rainy"
PUBLISH = """
import contextlib, io
from training.publish import main
error = io.StringIO()
with contextlib.redirect_stderr(error):
    status = main(arguments)
result = [status, error.getvalue()]
"""


@pytest.fixture(scope="module")
def hub():
    with HubServer() as hub:
        yield hub


@pytest.fixture(scope="module")
def clients(hub, tmp_path_factory):
    """Both processes; they start at once, since importing takes most of the time here."""
    common = {"preload": "from transformers import AutoModel, AutoProcessor", **hub.environment(xet=True)}
    clients = [Client(tmp_path_factory.mktemp("client"), has_package, **common) for has_package in (True, False)]
    yield clients
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def client(clients):
    return clients[0]


@pytest.fixture(scope="module")
def stranger(clients):
    return clients[1]


@pytest.fixture(scope="module")
def push(client):
    """`push(checkpoint, "--repo-id", ...)` runs training.publish; what it wrote on stderr is the answer."""

    def push(*arguments, status=0):
        got, error = client.run(PUBLISH, arguments=[str(argument) for argument in arguments])
        assert got == status, error
        return error

    return push


@pytest.fixture(scope="module")
def files(tmp_path_factory, write_audio, write_midi):
    folder = tmp_path_factory.mktemp("music")
    midi = write_midi(folder / "long.mid", seconds=30)
    return {"audio": str(write_audio(folder / "long.wav", seconds=25)), "midi": str(midi), "text": TEXT}


@pytest.fixture(scope="module")
def expected(tiny_model, tiny_processor, files):
    """The tiny checkpoint's embeddings of `files`."""
    return {
        "audio": embed_audio(tiny_model, tiny_processor, [files["audio"]]),
        "midi": embed_midi(tiny_model, tiny_processor, [files["midi"]]),
        "text": embed_text(tiny_model, tiny_processor, [TEXT]),
    }


@pytest.fixture(scope="module")
def published(push, tiny_checkpoint):
    push(tiny_checkpoint, "--repo-id", "tester/tiny", "--licence", "apache-2.0")
    return "tester/tiny"


def assert_same(actual, expected):
    for modality, embeds in expected.items():
        np.testing.assert_allclose(actual[modality], embeds, atol=1e-6, err_msg=modality)


@contextmanager
def transport(client, xet: bool):
    """How a client's large files travel: by xet, as they do unless told otherwise, or by LFS."""
    switch = "from huggingface_hub import constants\nconstants.HF_HUB_DISABLE_XET = lfs"
    client.run(switch, lfs=not xet)
    yield
    client.run(switch, lfs=False)


def state(hub):
    """What a repository holds, for all: a push that fails must not change it."""
    return {key: (dict(repository.branches), len(repository.commits)) for key, repository in hub.repositories.items()}


def test_a_push_is_one_commit_of_what_a_dry_run_writes(hub, published, tiny_checkpoint, tmp_path):
    folder = tmp_path / "dry"
    assert publish(tiny_checkpoint, "--repo-id", published, "--licence", "apache-2.0", "--output", folder) == 0
    written = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    repository = hub.repositories["model", published]
    pushed = {path: hub.read("model", published, path) for path in repository.files() if path != ".gitattributes"}
    assert pushed == written
    assert repository.files()["model.safetensors"].is_lfs
    assert hub.xet.hash_of(repository.files()["model.safetensors"].oid)
    assert len(repository.commits) == 2  # the Hub's own first one, and ours


@pytest.mark.parametrize("xet", [True, False])
def test_a_stranger_embeds_the_same_from_the_hub(hub, published, stranger, files, expected, tmp_path, xet):
    weights = "/objects/" + hub.repositories["model", published].files()["model.safetensors"].oid
    hub.asked.clear()
    settings = {"cache_dir": str(tmp_path)}
    with transport(stranger, xet):
        actual = stranger.run(LOAD_AND_EMBED, name=published, settings=settings, **files)
    assert not actual["has_package"] and actual["missing"] == []
    assert_same(actual, expected)
    assert any("xet-read-token" in path for path in hub.asked) == xet
    assert (weights in hub.asked) != xet


def test_the_package_loads_by_name_without_remote_code(published, client, files, expected):
    actual = client.run(
        "from modeling_pianobind import PianoBindModel, PianoBindProcessor\n"
        "model, processor = AutoModel.from_pretrained(name), AutoProcessor.from_pretrained(name)\n"
        "assert isinstance(model, PianoBindModel) and isinstance(processor, PianoBindProcessor)\n"
        "output = model(**processor(audio=[audio], midi=[midi], text=[text], return_tensors='pt'))\n"
        "result = {name: output[name + '_embeds'].tolist() for name in ('audio', 'midi', 'text')}",
        name=published,
        **files,
    )
    assert_same(actual, expected)


def test_branches_tags_and_commits_are_revisions(hub, published, push, client, stranger, files, expected, tmp_path):
    client.run(
        "import torch\n"
        "from modeling_pianobind import PianoBindModel, PianoBindProcessor\n"
        "model = PianoBindModel.from_pretrained(name)\n"
        "torch.nn.init.eye_(model.text_projection.weight)\n"
        "model.save_pretrained(folder); PianoBindProcessor.from_pretrained(name).save_pretrained(folder)",
        name=published,
        folder=tmp_path / "changed",
    )
    repository = hub.repositories["model", published]
    first, before = repository.branches["main"], dict(repository.files())
    push(tmp_path / "changed", "--repo-id", published, "--licence", "apache-2.0", "--revision", "next")
    assert repository.files() == before
    client.run(
        "from huggingface_hub import HfApi\nHfApi().create_tag(name, tag='v2', revision='next')", name=published
    )
    for revision, changed in (("next", True), ("v2", True), (first, False), ("main", False)):
        actual = stranger.run(LOAD_AND_EMBED, name=published, settings={"revision": revision}, **files)
        assert np.allclose(actual["midi"], expected["midi"], atol=1e-6)
        assert np.allclose(actual["text"], expected["text"], atol=1e-3) != changed, revision


def test_files_of_an_earlier_version_go_and_others_stay(hub, push, tiny_checkpoint):
    target = (tiny_checkpoint, "--repo-id", "tester/again", "--licence", "apache-2.0")
    push(*target)
    repository = hub.repositories["model", "tester/again"]
    old = {"old_pianobind.py": hub.store(b"pass", False), "onnx/text.onnx": hub.store(b"\0", True)}
    repository.commit("main", repository.files() | old, "by hand")
    push(*target)
    assert "old_pianobind.py" not in repository.files() and "onnx/text.onnx" in repository.files()


def test_push_to_hub_of_transformers_works_as_well(hub, client, tiny_checkpoint):
    same = client.run(
        "from modeling_pianobind import PianoBindModel, PianoBindProcessor\n"
        "model = PianoBindModel.from_pretrained(folder)\n"
        "model.push_to_hub('tester/plain'); PianoBindProcessor.from_pretrained(folder).push_to_hub('tester/plain')\n"
        "again = PianoBindModel.from_pretrained('tester/plain').state_dict()\n"
        "PianoBindProcessor.from_pretrained('tester/plain')\n"
        "result = all(weight.equal(again[name]) for name, weight in model.state_dict().items())",
        folder=tiny_checkpoint,
    )
    assert same
    assert {"config.json", "model.safetensors", "processor_config.json"} <= set(
        hub.repositories["model", "tester/plain"].files()
    )


def test_an_adapter_finds_its_base_on_the_hub(hub, published, push, client, stranger, files, tmp_path):
    adapted = client.run(
        "import torch\n"
        "from peft import LoraConfig, get_peft_model\n"
        "from modeling_pianobind import PianoBindModel, PianoBindProcessor\n"
        "torch.manual_seed(1)\n"
        "lora = LoraConfig(r=2, target_modules=r'.*(query|value|q_proj|v_proj)', init_lora_weights=False)\n"
        "model = get_peft_model(PianoBindModel.from_pretrained(base), lora).eval()\n"
        "model.save_pretrained(folder)\n"
        "processor = PianoBindProcessor.from_pretrained(base)\n"
        "processor.save_pretrained(folder)\n"
        "batch = processor(audio=[audio], midi=[midi], text=[text], return_tensors='pt')\n"
        "output = model(**batch)\n"
        "result = {name: output[name + '_embeds'].tolist() for name in ('audio', 'midi', 'text')}",
        base=published,
        folder=tmp_path / "adapter",
        **files,
    )
    target = ("--repo-id", "tester/adapter", "--licence", "apache-2.0", "--base-model")
    assert "runs/start is not on the Hub" in push(tmp_path / "adapter", *target, "runs/start", status=2)
    assert ("model", "tester/adapter") not in hub.repositories
    push(tmp_path / "adapter", *target, published)
    pushed = hub.repositories["model", "tester/adapter"].files()
    assert "adapter_model.safetensors" in pushed and "model.safetensors" not in pushed
    actual = client.run(
        "output = PianoBindModel.from_pretrained('tester/adapter')(**batch)\n"
        "result = {name: output[name + '_embeds'].tolist() for name in ('audio', 'midi', 'text')}"
    )
    assert_same(actual, adapted)
    for actual in client.run(
        "from peft import AutoPeftModel, AutoPeftModelForFeatureExtraction, PeftModel\n"
        "def embeds(model):\n"
        "    output = model(**batch)\n"
        "    return {name: output[name + '_embeds'].tolist() for name in ('audio', 'midi', 'text')}\n"
        "ours = {'import_allowlist': ['modeling_pianobind']}\n"  # PEFT imports no other package unless told
        "result = [\n"
        "    embeds(PeftModel.from_pretrained(PianoBindModel.from_pretrained(base), 'tester/adapter')),\n"
        "    embeds(AutoPeftModel.from_pretrained('tester/adapter', **ours)),\n"
        "    embeds(AutoPeftModelForFeatureExtraction.from_pretrained('tester/adapter', **ours)),\n"
        "]"
    ):
        assert_same(actual, adapted)
    for actual in stranger.run(
        "from peft import PeftModel\n"
        "remote = {'trust_remote_code': True}\n"
        "processor = AutoProcessor.from_pretrained('tester/adapter', **remote)\n"
        "batch = processor(audio=[audio], midi=[midi], text=[text], return_tensors='pt')\n"
        "models = [\n"
        "    AutoModel.from_pretrained('tester/adapter', **remote),\n"
        "    PeftModel.from_pretrained(AutoModel.from_pretrained(base, **remote), 'tester/adapter'),\n"
        "]\n"
        "outputs = [model(**batch) for model in models]\n"
        "result = [\n"
        "    {name: output[name + '_embeds'].tolist() for name in ('audio', 'midi', 'text')} for output in outputs\n"
        "]",
        base=published,
        **files,
    ):
        assert_same(actual, adapted)


def test_data_sets_are_pushed_and_loaded_by_name(hub, push, client, tmp_path):
    rows = client.run(
        "from pathlib import Path\n"
        "from datasets import Dataset, DatasetDict, load_dataset\n"
        "table = {'piece_id': ['a', 'b'], 'midi': [b'MThd', b'MTrk']}\n"
        "DatasetDict({split: Dataset.from_dict(table) for split in ('train', 'valid')}).push_to_hub('tester/plain')\n"
        "Path(folder, 'data').mkdir(parents=True)\n"
        "Dataset.from_dict(table).to_parquet(Path(folder, 'data', 'train-00000-of-00001.parquet'))\n"
        "Path(folder, 'README.md').write_text('---\\nlicense: mit\\n---\\n# Mine\\n')\n"
        "result = {split: rows['piece_id'] for split, rows in load_dataset('tester/plain').items()}\n"
        "result = {split: list(names) for split, names in result.items()}",
        folder=tmp_path / "corpus",
    )
    assert rows == {"train": ["a", "b"], "valid": ["a", "b"]}
    push(tmp_path / "corpus", "--repo-id", "tester/corpus")
    client.run(
        "from training.data.dataset_files import push_to_hub\n"
        "push_to_hub(Path(folder), 'tester/private', private=True)",
        folder=tmp_path / "corpus",
    )
    public, private = (hub.repositories["dataset", f"tester/{name}"] for name in ("corpus", "private"))
    assert private.private and not public.private and private.files() == public.files()
    first = hub.repositories["dataset", "tester/corpus"].branches["main"]
    loaded = (
        "result = [row['midi'].decode() for row in load_dataset('tester/corpus', split='train', revision=revision)]"
    )
    assert client.run(loaded, revision=None) == client.run(loaded, revision=first) == ["MThd", "MTrk"]


def test_the_metric_is_loaded_from_its_space(hub, push, stranger):
    push("--space", "metric", "--repo-id", "tester/piano_retrieval")
    scores = stranger.run(
        "import evaluate\n"
        "metric = evaluate.load('tester/piano_retrieval')\n"
        "result = metric.compute(predictions=[[0.9, 0.1], [0.8, 0.2]], references=[0, 1], bootstrap_samples=0)"
    )
    assert (scores["recall@1"], scores["mrr"]) == (0.5, 0.75)


@pytest.mark.parametrize(
    ("method", "path", "xet"),
    [
        ("POST", "/preupload/", True),
        ("GET", "/xet-write-token/", True),
        ("POST", "/commit/", True),
        ("POST", "/lfs/", False),
        ("PUT", "/objects/", False),
    ],
)
def test_a_broken_upload_leaves_no_half_repository(hub, published, client, push, local_folder, method, path, xet):
    before = state(hub)
    hub.fail(method, path)
    for target, said in (
        (["--repo-id", "tester/new"], "the repository made for it is deleted again"),
        (["--repo-id", published, "--revision", "broken"], "the branch broken made for it is deleted again"),
        (["--repo-id", published], "nothing on the Hub has changed"),
    ):
        with transport(client, xet):
            error = push(local_folder, "--licence", "cc0-1.0", *target, status=2)
        assert ("broken on purpose" in error or "xet-write-token" in error) and said in error
        assert state(hub) == before
    hub.heal()


def test_an_upload_whose_answer_is_lost_is_not_taken_back(hub, push, local_folder):
    hub.fail("POST", "/commit/", served=True)
    error = push(local_folder, "--repo-id", "tester/lost", "--licence", "cc0-1.0", status=2)
    hub.heal()
    assert "the commit reached the Hub all the same" in error
    assert "model.safetensors" in hub.repositories["model", "tester/lost"].files()


def test_what_cannot_be_deleted_is_named(hub, push, local_folder):
    hub.fail("POST", "/commit/")
    hub.fail("DELETE", "/repos/delete")
    error = push(local_folder, "--repo-id", "tester/stuck", "--licence", "cc0-1.0", status=2)
    hub.heal()
    assert "could not be told or deleted" in error and "look there" in error


@pytest.fixture(scope="module")
def local_folder(tiny_checkpoint, tmp_path_factory) -> Path:
    """A checkpoint whose weights the Hub has not seen, so that they have to be uploaded."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("local") / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: weight + 1 for name, weight in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    return folder
