"""The `pianobind` command."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet
import pytest

from modeling_pianobind import EmbeddingIndex, PianoBindModel, cli, embed_audio, embed_example, embed_text
from modeling_pianobind import embedding_pianobind as embedding

from .conftest import make_config

pytestmark = pytest.mark.usefixtures("cache")


def assert_one_line(err, *parts):
    assert err.startswith("pianobind: ") and err.count("\n") == 1, err
    for part in parts:
        assert part in err, err


class TestSearch:
    def test_json_is_all_that_stdout_gets(self, pianobind, corpus):
        status, out, err = pianobind("search", corpus, "calm, slow, rainy", "--top-k", "3", "--json")
        rows = json.loads(out)
        assert status == 0 and err == ""
        assert [list(row) for row in rows] == [["rank", "score", "path", "start_seconds", "end_seconds", "fit"]] * 3
        assert [row["rank"] for row in rows] == [1, 2, 3]
        assert all(os.path.isfile(row["path"]) and row["start_seconds"] < row["end_seconds"] for row in rows)

    def test_the_table_has_rank_score_span_and_path(self, pianobind, corpus):
        status, out, _ = pianobind("search", corpus, "fast jazz")
        lines = out.splitlines()
        assert status == 0 and len(lines) == 4
        assert all(re.fullmatch(r" +\d +\d+% +\d+:\d\d-\d+:\d\d  \S.*", line) for line in lines)
        assert len({line.index(str(corpus)) for line in lines}) == 1

    def test_a_query_finds_what_the_library_finds(self, pianobind, corpus, tiny_model, tiny_processor):
        index = EmbeddingIndex.build(tiny_model, tiny_processor, corpus)
        words = embed_text(tiny_model, tiny_processor, "a gentle waltz")
        example = embed_example(tiny_model, tiny_processor, corpus / "march.mid")
        for arguments, hits in (
            (["a gentle waltz"], index.search(words)[0]),
            (["--like", corpus / "march.mid"], index.search_like(example)),
            (["a gentle waltz", "--like", corpus / "march.mid"], index.search_like(example, words=words[0])),
            (["--like", corpus / "march.mid", "a gentle waltz"], index.search_like(example, words=words[0])),
        ):
            rows = json.loads(pianobind("search", corpus, *arguments, "--json", "--no-names")[1])
            assert [row["path"] for row in rows] == [hit.path for hit in hits]
            assert [row["score"] for row in rows] == pytest.approx([hit.score for hit in hits], abs=1e-5)

    def test_only_changed_files_are_embedded_again(self, pianobind, corpus, embedded, write_midi):
        first = pianobind("search", corpus, "calm")
        assert len(embedded) == 5
        for path in corpus.iterdir():
            os.utime(path, (1, 1))
        assert pianobind("search", corpus, "calm") == first and len(embedded) == 5
        write_midi(corpus / "march.mid", seed=8)
        (corpus / "rain.wav").unlink()
        assert len(pianobind("search", corpus, "calm")[1].splitlines()) == 3
        assert embedded[5:] == ["march.mid"]

    def test_the_folder_is_never_written_to(self, pianobind, corpus, cache):
        before = sorted(corpus.rglob("*"))
        pianobind("search", corpus, "calm")
        assert sorted(corpus.rglob("*")) == before and any(cache.iterdir())

    def test_a_damaged_cache_is_made_again(self, pianobind, corpus, cache):
        first = pianobind("search", corpus, "calm")
        for file in cache.rglob("*.safetensors"):
            file.write_bytes(b"")
        assert pianobind("search", corpus, "calm") == first

    def test_a_cache_that_cannot_be_written_is_a_warning(self, pianobind, corpus, cache):
        cache.write_text("in the way")
        status, out, err = pianobind("search", corpus, "calm")
        assert status == 0 and len(out.splitlines()) == 4
        assert_one_line(err, "warning", "PIANOBIND_CACHE")

    def test_changed_window_settings_embed_again(self, pianobind, corpus, embedded, tiny_checkpoint, tmp_path):
        pianobind("search", corpus, "calm")
        other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
        settings = json.loads((other / "processor_config.json").read_text())
        settings["midi_processor"]["hop_seconds"] = 5.0
        (other / "processor_config.json").write_text(json.dumps(settings))
        pianobind("search", corpus, "calm", checkpoint=other)
        assert len(embedded) == 10

    def test_a_search_by_words_of_a_cached_folder_imports_no_torch(self, pianobind, corpus, tiny_checkpoint):
        pianobind("search", corpus, "calm")
        program = (
            "import sys; from modeling_pianobind import cli; "
            f"status = cli.main(['search', {str(corpus)!r}, 'calm', '--checkpoint', {str(tiny_checkpoint)!r}]); "
            "assert status == 0 and 'torch' not in sys.modules and 'transformers' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)

    def test_bad_files_are_named_and_the_others_found(self, pianobind, corpus):
        (corpus / "empty.mid").touch()
        (corpus / "noise.mp3").write_bytes(b"not music")
        for _ in range(2):
            status, out, err = pianobind("search", corpus, "calm", "--json")
            assert status == 2 and len(json.loads(out)) == 4
            lines = err.splitlines()
            assert len(lines) == 2 and all(line.startswith(f"pianobind: {corpus}") for line in lines)
            assert "empty.mid: the file is empty" in lines[0] and "noise.mp3: cannot be decoded" in lines[1]

    def test_a_folder_that_cannot_be_listed_is_named(self, pianobind, corpus, tmp_path, monkeypatch):
        (corpus / "locked").mkdir()
        listed = {"scandir": os.scandir, "listdir": os.listdir}  # tests may run as root, whom no permission stops
        for name, function in listed.items():

            def refuse(path=".", function=function):
                if str(path) == str(corpus / "locked"):
                    raise PermissionError(13, "Permission denied", str(path))
                return function(path)

            monkeypatch.setattr(os, name, refuse)
        refused = f"{corpus / 'locked'}: no permission to read it; change its permissions or leave it out."
        for command in (["search", corpus, "calm"], ["embed", corpus, "--output", tmp_path / "all.npz"]):
            status, out, err = pianobind(*command)
            assert status == 2 and len(out.splitlines()) in (1, 4)
            assert_one_line(err, refused)
        status, out, err = pianobind("search", corpus / "locked", "calm")
        assert (status, out) == (2, "")
        assert_one_line(err, refused)

    def test_kinds_of_files_that_are_left_out_are_named_up_to_five(self, pianobind, corpus):
        for kind in "abcdefg":
            (corpus / f"x.{kind}").touch()
        status, _, err = pianobind("search", corpus, "calm")
        assert status == 0
        assert_one_line(err, "7 files of other kinds are left out (1 .a, 1 .b, 1 .c, 1 .d, 1 .e, ...)")

    def test_one_folder_in_two_checkpoints_has_two_caches(self, pianobind, corpus, tiny_checkpoint, tmp_path):
        other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
        model = PianoBindModel.from_pretrained(other)
        model.text_projection.weight.data.neg_()
        model.save_pretrained(other)
        first = json.loads(pianobind("search", corpus, "calm", "--json")[1])
        turned = json.loads(pianobind("search", corpus, "calm", "--json", checkpoint=other)[1])
        assert [row["path"] for row in first] == [row["path"] for row in turned][::-1]

    def test_another_text_tower_is_searched_through_the_model(self, pianobind, corpus, tiny_checkpoint, tmp_path):
        other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
        config = json.loads((other / "config.json").read_text())
        config["text_config"]["hidden_act"] = "relu"
        (other / "config.json").write_text(json.dumps(config))
        assert pianobind("search", corpus, "calm", checkpoint=other)[0] == 0

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            ([], ["PATH", "--help"]),
            (["{corpus}"], ["nothing to search for", "--like"]),
            (["{corpus}", "  "], ["the query is empty"]),
            (["{corpus}", "calm", "--top-k", "0"], ["'0' is not a whole number of at least 1"]),
            (["{corpus}", "calm", "--loud"], ["unknown arguments: --loud; see `pianobind search --help`"]),
            (["{corpus}", "calm", "--topk", "3"], ["unknown arguments: --topk 3; did you mean --top-k?"]),
            (["calm", "{corpus}"], ["calm: does not exist; the folder comes first: pianobind search {corpus} 'calm'"]),
            (["{corpus}", "{corpus}/march.mid"], ["march.mid: is a file; search by its sound with --like"]),
            (["{corpus}", "calm", "--tempo", "fast"], ["tempo is 'fast'; give a range such as 2-5"]),
            (["{corpus}", "calm", "--key", "H minor"], ["'H minor' is not a key"]),
            (["missing", "calm"], ["missing: does not exist"]),
            (["{corpus}/march.mid", "calm"], ["march.mid: is a file", "--like"]),
            (["{corpus}", "--like", "missing.mid"], ["missing.mid: does not exist"]),
            (["{corpus}", "--like", "{corpus}"], ["is a folder, not a file"]),
            (["{corpus}", "--like", "{corpus}/cover.jpg"], ["cover.jpg: its extension .jpg"]),
            (["{corpus}/bare", "calm"], ["bare: there is no .mid"]),
            (["{corpus}", "calm", "--device", "quantum"], ["'quantum' is unknown", "cuda"]),
            (["{corpus}", "calm", "--device", "cuda:99"], ["'cuda:99' is not available here"]),
            (["{corpus}", "calm", "--device", "meta"], ["'meta' is unknown"]),
        ],
    )
    def test_a_mistake_is_one_line(self, pianobind, corpus, arguments, parts):
        (corpus / "cover.jpg").touch()
        (corpus / "bare").mkdir()
        arguments = [argument.format(corpus=corpus) for argument in arguments]
        status, out, err = pianobind("search", *arguments)
        assert status == 2 and out == ""
        assert_one_line(err, *(part.format(corpus=corpus) for part in parts))


class TestCheckpoint:
    def refused(self, pianobind, corpus, checkpoint, *parts):
        status, out, err = pianobind("search", corpus, "calm", checkpoint=checkpoint)
        assert status == 2 and out == ""
        assert_one_line(err, str(checkpoint), *parts)

    def test_a_missing_or_foreign_checkpoint_is_one_line(self, pianobind, corpus, tmp_path):
        self.refused(pianobind, corpus, tmp_path / "missing", "neither a folder nor a Hub id")
        self.refused(pianobind, corpus, corpus, "no config.json")
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        self.refused(pianobind, corpus, tmp_path, "is a 'bert' checkpoint")
        (tmp_path / "config.json").write_text("{")
        self.refused(pianobind, corpus, tmp_path, "config.json: is damaged")

    def test_a_hub_id_that_is_not_there_is_one_line(self, pianobind, corpus):
        self.refused(pianobind, corpus, "nobody/no-such-pianobind", "the Hub cannot be reached")

    def test_weights_that_were_cut_off_are_one_line(self, pianobind, corpus, tiny_checkpoint, tmp_path):
        other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
        weights = other / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        self.refused(pianobind, corpus, other, "the weights are damaged")

    def test_weights_that_are_missing_are_not_made_up(self, pianobind, corpus, tiny_checkpoint, tmp_path):
        other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
        PianoBindModel(make_config(audio_config=None)).save_pretrained(tmp_path / "part")
        shutil.copy(tmp_path / "part" / "model.safetensors", other)
        self.refused(pianobind, corpus, other, "lacks", "weights")

    def test_a_tower_that_is_missing_fails_only_its_files(self, pianobind, corpus, tiny_checkpoint, tmp_path):
        other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
        PianoBindModel(make_config(audio_config=None)).save_pretrained(other)
        status, out, err = pianobind("search", corpus, "calm", "--json", checkpoint=other)
        assert status == 2 and len(json.loads(out)) == 3
        assert err.count("the checkpoint has no audio tower") == 2


class TestIndex:
    def test_a_saved_index_is_searched_from_anywhere(self, pianobind, corpus, tmp_path, monkeypatch):
        monkeypatch.chdir(corpus.parent)
        status, out, _ = pianobind("index", corpus.name, "--output", "saved")
        assert status == 0 and "4 pieces" in out
        from_folder = json.loads(pianobind("search", corpus, "calm", "--json")[1])
        monkeypatch.chdir("/")
        assert json.loads(pianobind("search", tmp_path / "saved", "calm", "--json")[1]) == from_folder

    def test_indexing_again_embeds_only_what_changed(self, pianobind, corpus, tmp_path, embedded, write_midi):
        pianobind("index", corpus, "--output", tmp_path / "saved")
        write_midi(corpus / "new.mid", seed=7)
        status, out, _ = pianobind("index", corpus, "--output", tmp_path / "saved")
        assert status == 0 and "5 pieces" in out and embedded[5:] == ["new.mid"]

    def test_bad_files_are_named_and_the_index_holds_the_others(self, pianobind, corpus, tmp_path):
        (corpus / "take.mid").write_bytes(b"MThd")
        status, out, err = pianobind("index", corpus, "--output", tmp_path / "saved")
        assert status == 2 and "4 pieces" in out
        assert_one_line(err, "take.mid: the file ends within its header")
        assert len(EmbeddingIndex.load(tmp_path / "saved")) == 4

    def test_another_checkpoint_may_not_search_it(self, pianobind, corpus, tmp_path, tiny_checkpoint):
        pianobind("index", corpus, "--output", tmp_path / "saved")
        other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
        PianoBindModel(make_config()).save_pretrained(other)
        status, out, err = pianobind("search", tmp_path / "saved", "calm", checkpoint=other)
        assert status == 2 and out == ""
        assert_one_line(err, "saved: another checkpoint made this index")

    def test_a_damaged_index_is_one_line_and_can_be_made_again(self, pianobind, corpus, tmp_path):
        pianobind("index", corpus, "--output", tmp_path / "saved")
        next((tmp_path / "saved").glob("rows-*")).write_bytes(b"")
        status, _, err = pianobind("search", tmp_path / "saved", "calm")
        assert status == 2
        assert_one_line(err, "saved: the index is damaged", "build the index again")
        assert pianobind("index", corpus, "--output", tmp_path / "saved")[0] == 0
        assert pianobind("search", tmp_path / "saved", "calm")[0] == 0

    def test_other_things_are_not_overwritten(self, pianobind, corpus, tmp_path):
        (tmp_path / "file").touch()
        for output, reason in ((tmp_path / "file", "a file of that name"), (corpus, "something else than an index")):
            status, out, err = pianobind("index", corpus, "--output", output)
            assert status == 2 and out == ""
            assert_one_line(err, str(output), reason)

    def test_what_an_interrupted_run_embedded_is_kept(self, pianobind, corpus, tmp_path, monkeypatch, embedded):
        files = embedding.embed_files

        def interrupted(*arguments, **settings):
            for number, result in enumerate(files(*arguments, **settings)):
                if number == 3:
                    raise KeyboardInterrupt
                yield result

        monkeypatch.setattr(embedding, "embed_files", interrupted)
        status, out, err = pianobind("index", corpus, "--output", tmp_path / "saved")
        assert status == 130 and out == "" and "kept" in err
        monkeypatch.setattr(embedding, "embed_files", files)
        del embedded[:]
        assert pianobind("index", corpus, "--output", tmp_path / "saved")[0] == 0
        assert len(embedded) == 2


class TestEmbed:
    def test_npz_holds_paths_and_embeddings(self, pianobind, corpus, tmp_path, tiny_model, tiny_processor):
        status, out, err = pianobind("embed", corpus, "--output", tmp_path / "all.npz")
        assert (status, err) == (0, "") and "5 embeddings" in out
        with np.load(tmp_path / "all.npz") as saved:
            assert list(saved["paths"]) == sorted(saved["paths"]) and saved["embeddings"].shape == (5, 24)
            row = list(saved["paths"]).index(str(corpus / "rain.wav"))
            rain = embed_audio(tiny_model, tiny_processor, corpus / "rain.wav")[0]
            assert saved["embeddings"][row] @ rain > 0.99999

    def test_parquet_holds_the_same(self, pianobind, corpus, tmp_path):
        assert pianobind("embed", corpus / "march.mid", "--output", tmp_path / "one.parquet")[0] == 0
        row = pyarrow.parquet.read_table(tmp_path / "one.parquet").to_pylist()[0]
        assert row["path"] == str(corpus / "march.mid") and len(row["embedding"]) == 24

    def test_a_bad_file_is_named_and_the_others_written(self, pianobind, corpus, tmp_path):
        (corpus / "bad.wav").write_bytes(b"RIFF")
        status, _, err = pianobind("embed", corpus, "--output", tmp_path / "all.npz")
        assert status == 2
        assert_one_line(err, "bad.wav: cannot be decoded")
        assert len(np.load(tmp_path / "all.npz")["paths"]) == 5

    @pytest.mark.parametrize(
        ("path", "output", "parts"),
        [
            ("march.mid", "all.csv", ["all.csv", ".npz nor .parquet"]),
            ("march.mid", "no/such/folder.npz", ["folder does not exist"]),
            ("missing.mid", "all.npz", ["missing.mid: does not exist"]),
            ("cover.jpg", "all.npz", ["cover.jpg: its extension .jpg"]),
            ("bare", "all.npz", ["bare: there is no MIDI file"]),
        ],
    )
    def test_a_mistake_is_one_line(self, pianobind, corpus, tmp_path, path, output, parts):
        (corpus / "cover.jpg").touch()
        (corpus / "bare").mkdir()
        status, out, err = pianobind("embed", corpus / path, "--output", tmp_path / output)
        assert status == 2 and out == "" and not (tmp_path / output).exists()
        assert_one_line(err, *parts)


class TestDescribe:
    def test_labels_stand_best_first(self, pianobind, corpus):
        status, out, err = pianobind("describe", corpus / "rain.wav", "--labels", "calm, fast,jazz", "--top-k", "2")
        scores = [float(line.split()[0]) for line in out.splitlines()]
        assert (status, err) == (0, "") and len(scores) == 2 and scores == sorted(scores, reverse=True)

    def test_a_mistake_is_one_line(self, pianobind, corpus):
        (corpus / "cover.jpg").touch()
        for arguments, part in (
            ([corpus / "missing.mid"], "missing.mid: does not exist"),
            ([corpus / "cover.jpg"], "cover.jpg: its extension .jpg"),
            ([corpus / "rain.wav", "--labels", " , "], "--labels is empty"),
        ):
            status, out, err = pianobind("describe", *arguments)
            assert status == 2 and out == ""
            assert_one_line(err, part)


class TestDemo:
    def test_hits_come_with_their_words(self, pianobind, tmp_path, write_midi, monkeypatch):
        examples = tmp_path / "package" / "examples"
        examples.mkdir(parents=True)
        for seed, name in enumerate(("first.mid", "second.mid")):
            write_midi(examples / name, seed=seed)
        rows = [{"file": "first.mid", "title": "Opus 1", "creator": "Somebody"}, {"file": "second.mid"}]
        (examples / "examples.jsonl").write_text("\n".join(map(json.dumps, rows)))
        monkeypatch.setattr(cli, "EXAMPLES", examples)
        status, out, err = pianobind("demo")
        assert (status, err) == (0, "")
        assert out.count('\n"') == cli.DEMO_SEARCHES
        assert "Opus 1, Somebody\n" in out and "second.mid\n" in out


class TestCommand:
    def run(self, *arguments, **settings):
        program = [sys.executable, "-m", "modeling_pianobind.cli", *map(str, arguments)]
        return subprocess.run(program, capture_output=True, text=True, **settings)

    @pytest.mark.parametrize("command", ["search", "index", "embed", "describe", "export", "demo"])
    def test_every_command_has_help_device_and_checkpoint(self, command, capsys):
        with pytest.raises(SystemExit) as stop:
            cli.main([command, "--help"])
        out = capsys.readouterr().out
        assert stop.value.code == 0 and "--device" in out and "--checkpoint" in out and "--help" in out

    def test_no_command_and_an_unknown_one_are_one_line(self, capsys):
        for argv in ([], ["sing"]):
            assert cli.main(argv) == 2
            assert_one_line(capsys.readouterr().err, "COMMAND" if not argv else "sing")

    def test_a_process_prints_nothing_but_its_answer(self, corpus, tiny_checkpoint):
        done = self.run("search", corpus, "calm", "--json", "--checkpoint", tiny_checkpoint)
        assert done.returncode == 0 and len(json.loads(done.stdout)) == 4
        # A busy machine takes so long that it says how far it has come.
        said = r"pianobind: (nothing fits well: .*|\d+ of \d+ files are (read|embedded).*)"
        assert all(re.fullmatch(said, line) for line in done.stderr.splitlines())

    def test_a_reader_that_leaves_early_is_no_error(self, pianobind, corpus, tiny_checkpoint):
        pianobind("search", corpus, "calm")
        program = [sys.executable, "-m", "modeling_pianobind.cli", "search", str(corpus), "calm"]
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [*program, "--checkpoint", str(tiny_checkpoint)], stdout=writing, stderr=subprocess.PIPE, text=True
        )
        os.close(writing)
        assert done.returncode == 141 and done.stderr == ""

    def test_odd_file_names_are_printed_and_read_back(self, pianobind, corpus, tiny_checkpoint, write_midi):
        odd = ["ピアノ ソナタ.mid", os.fsdecode(b"caf\xe9.mid"), 'it\'s "so".mid']
        for seed, name in enumerate(odd):
            write_midi(corpus / "x.mid", seed=20 + seed)
            os.rename(corpus / "x.mid", corpus / name)
        pianobind("search", corpus, "calm")
        settings = {"env": os.environ | {"PYTHONIOENCODING": "utf-8", "LC_ALL": "C.UTF-8"}}
        table = self.run("search", corpus, "calm", "--checkpoint", tiny_checkpoint, **settings)
        rows = self.run("search", corpus, "calm", "--json", "--checkpoint", tiny_checkpoint, **settings)
        assert table.returncode == rows.returncode == 0 and "ピアノ ソナタ.mid" in table.stdout
        assert {str(corpus / name) for name in odd} < {row["path"] for row in json.loads(rows.stdout)}
