"""Card, results and licence files of a published checkpoint."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import jinja2
import yaml
from huggingface_hub import EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml
from safetensors import SafetensorError, safe_open

from model_cards.figures import Figure, figure_table, figures_of, model_index
from modeling_pianobind.index.storage import file_sha256
from modeling_pianobind.service.examples import DEMO_QUERIES

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "model_cards" / "hub_card.md.jinja"
RESULTS = ROOT / "evaluation" / "results"
HUB_ID = r"[\w.-]+/[\w.-]+"
CORPUS = "open-piano-corpus"  # name of the corpus on the Hub, by default of the same owner
TAGS = ["pianobind", "piano", "music", "midi", "audio", "retrieval", "contrastive"]
WIDGET = DEMO_QUERIES[:3]
LICENCES = {
    "apache-2.0": ("Apache License 2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
    "cc0-1.0": ("CC0 1.0 Universal", "https://creativecommons.org/publicdomain/zero/1.0/legalcode"),
    **{
        f"cc-{terms}-4.0": (
            f"Creative Commons {name} 4.0 International",
            f"https://creativecommons.org/licenses/{terms}/4.0/legalcode",
        )
        for terms, name in (
            ("by", "Attribution"),
            ("by-sa", "Attribution-ShareAlike"),
            ("by-nc", "Attribution-NonCommercial"),
            ("by-nc-sa", "Attribution-NonCommercial-ShareAlike"),
        )
    },
}


@dataclass
class HubOptions:
    """Options of a publication that cannot be derived."""

    repo_id: str
    licence: str = ""  # identifier of the Hub; "" takes that of the checkpoint's own card
    licence_file: Path | None = None  # for licences that are not in LICENCES
    results: Path | None = None  # None looks in evaluation/results for those of these weights
    base_model: str = ""  # Hub id of an adapter's base; "" takes what the adapter says
    dataset: str = ""  # Hub id, with @REVISION if known, of what `results` were measured on


def base_of(checkpoint: Path, adapter: dict, options: HubOptions) -> str:
    """Hub id of the checkpoint that an adapter belongs to.

    Raises:
        ValueError: the adapter names a folder of this machine, and no option says where on the Hub it is.
    """
    base = options.base_model or adapter.get("base_model_name_or_path") or ""
    if not re.fullmatch(HUB_ID, base) or Path(base).exists():
        raise ValueError(
            f"{checkpoint}: its base is {base!r}, which is not a Hub id; publish the base first, "
            "then say `--base-model OWNER/NAME`."
        )
    return base


def write_card(checkpoint: Path, folder: Path, settings: dict, options: HubOptions) -> None:
    """Writes README.md, LICENSE, LICENSE-CODE and, where there are results, results.json and .eval_results.

    Args:
        settings (`dict`): of config.json, or of adapter_config.json.
    """
    base = settings.get("base_model_name_or_path")
    own = checkpoint / "README.md"
    # PEFT writes an empty card for every adapter
    own_card = ModelCard.load(own, ignore_metadata_errors=True) if own.is_file() and not base else None
    licence = options.licence or (own_card.data.license if own_card else None)
    results, figures = _results_of(checkpoint, folder, options)
    _write_licence(checkpoint, folder, licence, results, options)
    dataset, revision = _dataset_of(results, options)
    name = options.repo_id.split("/")[1]
    is_classifier = "AutoModelForAudioClassification" in settings.get("auto_map", {})
    data = {
        "model_name": name,
        "license": licence if licence in LICENCES else "other",
        "license_name": None if licence in LICENCES else licence,
        "license_link": None if licence in LICENCES else "LICENSE",
        "language": "en",
        "library_name": "peft" if base else "transformers",
        "pipeline_tag": "audio-classification" if is_classifier else "feature-extraction",
        "tags": TAGS + (["lora"] if base else []),
        "base_model": base or (own_card.data.base_model if own_card else None),
        "base_model_relation": "adapter" if base else None,
        "datasets": [options.dataset.partition("@")[0]] if options.dataset else None,
        "widget": None if is_classifier else [{"text": text} for text in WIDGET],
        "eval_results": model_index(figures, dataset, results["split"]) if figures else None,
    }
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    content = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        card_data=ModelCardData(**{key: value for key, value in data.items() if value is not None}).to_yaml(),
        body=_with_images(own_card.text.strip(), checkpoint, folder) if own_card else None,
        name=name,
        repo_id=options.repo_id,
        is_classifier=is_classifier,
        adapter=settings if base else None,
        dim=settings.get("projection_dim"),
        towers=_towers(folder),
        table=figure_table(figures) if figures else None,
        split=results.get("split"),
        licence=licence if licence not in LICENCES else LICENCES[licence][0],
        has_processor=(folder / "processor_config.json").is_file(),
        has_code=any(folder.glob("*.py")),
    )
    (folder / "README.md").write_text(content, encoding="utf-8")
    if figures:
        _write_eval_results(folder, figures, results, dataset, revision, options.repo_id)


def _with_images(text: str, checkpoint: Path, folder: Path) -> str:
    """A card with its linked pictures copied to the folder."""

    def copied(link):
        picture = checkpoint / link[2]
        if not picture.is_file():
            return link[0]
        (folder / "plots").mkdir(exist_ok=True)
        shutil.copyfile(picture, folder / "plots" / picture.name)
        return f"{link[1]}(plots/{picture.name})"

    return re.sub(r"(!\[[^\]]*\])\(([^)\s]+)\)", copied, text)


def _results_of(checkpoint: Path, folder: Path, options: HubOptions) -> tuple[dict, list[Figure]]:
    """Results of these weights, copied into the folder, and the card's figures; `({}, [])` if there are none."""
    weights = next(folder.glob("*model.safetensors"), None)
    digest = file_sha256(weights) if weights else None
    path = options.results
    if path is None:
        known = ((path, _json(path)) for path in sorted(RESULTS.glob("*.json")))
        of_these = (
            path for path, results in known if results.get("weights_sha256") == digest and "protocols" in results
        )
        path = next(of_these, None)
        if path is None:
            return {}, []
    results = _json(path)
    if "protocols" not in results:
        raise ValueError(
            f"{path}: these are not results of evaluation.evaluate_checkpoint; give a file that it wrote."
        )
    measured = results.get("weights_sha256")
    if measured and digest and measured != digest:
        raise ValueError(f"{path}: these results were measured on other weights than {weights.name} of {checkpoint}.")
    shutil.copyfile(path, folder / "results.json")
    return {"split": "valid"} | results, figures_of(results)


def _write_licence(checkpoint: Path, folder: Path, licence: str, results: dict, options: HubOptions) -> None:
    """LICENSE for the weights; LICENSE-CODE for the modules, which are always Apache-2.0.

    Raises:
        ValueError: the licence or its text is unknown, or it allows what a training source forbids.
    """
    if not licence:
        raise ValueError(f"{checkpoint}: nothing says its licence; say `--licence ID`, such as cc-by-nc-sa-4.0.")
    bound = [source["name"] for source in results.get("sources", []) if re.search(r"\bNC\b", source["licence"])]
    if bound and licence in LICENCES and "nc" not in licence.split("-"):
        raise ValueError(
            f"{checkpoint}: it was trained on {', '.join(bound)}, which must not be used commercially, and {licence} "
            "allows that; choose a licence that does not, such as cc-by-nc-sa-4.0."
        )
    if options.licence_file:
        shutil.copyfile(options.licence_file, folder / "LICENSE")
    elif licence == "apache-2.0":
        shutil.copyfile(ROOT / "LICENSE", folder / "LICENSE")
    elif licence in LICENCES:
        name, address = LICENCES[licence]
        (folder / "LICENSE").write_text(
            f"The weights, configuration and card in this repository are licensed under the {name} licence.\n"
            f"Its text: {address}\n\nThe Python files are licensed under the Apache License 2.0: see LICENSE-CODE.\n"
        )
    else:
        raise ValueError(f"{licence!r} is not one of {', '.join(LICENCES)}; give its text with `--licence-file FILE`.")
    if any(folder.glob("*.py")):
        shutil.copyfile(ROOT / "LICENSE", folder / "LICENSE-CODE")


def _dataset_of(results: dict, options: HubOptions) -> tuple[str, str | None]:
    """Hub id and revision of the data set that was measured on."""
    named = options.dataset or results.get("dataset") or f"{options.repo_id.split('/')[0]}/{CORPUS}"
    dataset, _, revision = named.partition("@")
    return dataset, revision or None


def _write_eval_results(
    folder: Path, figures: list[Figure], results: dict, dataset: str, revision: str | None, repo_id: str
) -> None:
    """Writes the figures as the Hub's leaderboards read them."""
    entries = [
        EvalResultEntry(
            dataset_id=dataset,
            dataset_revision=revision,
            task_id=re.sub(r"\W+", "_", figure.path),
            value=figure.value,
            source_url=f"https://huggingface.co/{repo_id}/blob/main/results.json",
            source_name="results.json",
            notes=f"{figure.name}; split {results['split']}",
        )
        for figure in figures
    ]
    target = folder / ".eval_results" / f"{dataset.split('/')[-1]}.yaml"
    target.parent.mkdir()
    target.write_text(yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False), encoding="utf-8")


def _towers(folder: Path) -> dict[str, int]:
    """Parameters of each tower, or of an adapter's weights for it, counted in the files."""
    counts = dict.fromkeys(("audio", "midi", "text"), 0)
    for path in folder.glob("*model*.safetensors"):
        try:
            with safe_open(path, framework="numpy") as file:
                for name in file.keys():  # noqa: SIM118  (a safetensors file is not a dict)
                    for tower in counts:
                        if f"{tower}_model." in name or f"{tower}_projection." in name:
                            size = 1
                            for length in file.get_slice(name).get_shape():
                                size *= length
                            counts[tower] += size
        except SafetensorError as error:
            raise ValueError(f"{path.name}: the weights are damaged ({error}); copy the file again.") from error
    return {tower: count for tower, count in counts.items() if count}


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: this is not JSON ({error}); copy the file again.") from error


__all__ = ["HUB_ID", "LICENCES", "HubOptions", "base_of", "write_card"]
