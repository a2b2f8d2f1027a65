"""A page for the metric: paste or upload scores or embeddings, read the table. Needs no network once started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import evaluate
import numpy as np

EXAMPLE_SCORES = """\
0.81, 0.22, 0.10, 0.35
0.15, 0.40, 0.40, 0.12
0.55, 0.20, 0.31, 0.05
0.02, 0.11, 0.25, 0.77
"""
INTRODUCTION = """\
# Piano retrieval
Does the right recording come up when somebody asks for it? Rows are **queries**, columns are **items**, a higher score
is a better match. Upload a `.csv` of scores, or an `.npz` with `query_embeddings` and `item_embeddings` (and, if you
like, `relevant`: one column index per query), or paste the scores. A file goes before pasted text.
"""
HEADERS = ["figure", "query → item", "interval", "item → query", "interval"]

# The script by its path: given a folder, `evaluate` looks for a script with the folder's name, and a Space's differs.
METRIC = evaluate.load(str(Path(__file__).with_name("piano_retrieval.py")))


def read_input(path: str | None, pasted: str) -> dict[str, np.ndarray]:
    """Reads the uploaded file, or the pasted scores if there is none.

    Args:
        path (`str`, *optional*): a `.csv` of scores or an `.npz` of embeddings.
        pasted (`str`): scores, a row per line, numbers parted by commas.
    Returns:
        `dict`: keyword arguments of the metric.
    Raises:
        ValueError: another kind of file, something that is not a number, or an array missing in the `.npz`.
    """
    if path and Path(path).suffix == ".npz":
        # Without pickle: an uploaded file must not run code.
        with np.load(path, allow_pickle=False) as arrays:
            missing = {"query_embeddings", "item_embeddings"} - set(arrays.files)
            if missing:
                raise ValueError(
                    f"{Path(path).name} holds {arrays.files} and lacks {sorted(missing)}. Save it with "
                    "`np.savez(path, query_embeddings=..., item_embeddings=...)`."
                )
            inputs = {"query_embeddings": arrays["query_embeddings"], "item_embeddings": arrays["item_embeddings"]}
            return inputs | ({"references": arrays["relevant"]} if "relevant" in arrays.files else {})
    if path and Path(path).suffix != ".csv":
        raise ValueError(f"{Path(path).name} is neither .csv nor .npz. Upload scores as .csv or embeddings as .npz.")
    lines = (Path(path).read_text(encoding="utf-8") if path else pasted).splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append([float(cell) for cell in line.split(",")])
            except ValueError as error:
                raise ValueError(
                    f"Line {number} of the scores, {line[:60]!r}, is not a row of numbers parted by commas. "
                    "Remove headings and names, and write decimals with a point."
                ) from error
    return {"predictions": rows}


def read_relevant(text: str) -> list[list[int]]:
    """Reads one line per query, `0` or `0, 3`, into column indices.

    Args:
        text (`str`): the lines.
    Returns:
        `list[list[int]]`: relevant columns of each query, counted from 0.
    Raises:
        ValueError: something that is not a whole number.
    """
    relevant = []
    for number, line in enumerate(text.strip().splitlines(), 1):
        try:
            relevant.append([int(cell) for cell in line.split(",")])
        except ValueError as error:
            raise ValueError(
                f"Line {number} of the relevant columns is {line!r}; expected whole numbers parted by commas, such as "
                "`0` or `0, 3`, one line per query."
            ) from error
    return relevant


def make_table(path: str | None, pasted: str, relevant: str, reverse: bool, samples: float) -> list[list[Any]]:
    """Computes the figures for the page.

    Args:
        path (`str`, *optional*), pasted (`str`): as in `read_input`.
        relevant (`str`): as in `read_relevant`; empty takes the file's own, else column i for row i.
        reverse (`bool`): also rank the queries for each item.
        samples (`float`): bootstrap draws, a whole number.
    Returns:
        `list[list]`: a row per figure, in the order of `HEADERS`.
    Raises:
        ValueError: the input cannot be read, or the metric refuses it.
    """
    inputs = read_input(path, pasted)
    if relevant.strip():
        inputs["references"] = read_relevant(relevant)
    if "references" not in inputs:
        inputs["references"] = range(len(inputs.get("predictions", inputs.get("query_embeddings"))))
    scores = METRIC.compute(**inputs, reverse=reverse, bootstrap_samples=int(samples))

    def cells(name: str) -> list[str]:
        low_high = scores.get(f"{name}_interval")
        value = f"{scores[name]:.4g}" if name in scores else ""
        return [value, f"{low_high[0]:.4g} to {low_high[1]:.4g}" if low_high else ""]

    figures = [name for name in scores if not name.startswith("reverse_") and not name.endswith("_interval")]
    return [[name, *cells(name), *cells(f"reverse_{name}")] for name in figures]


def build_page() -> Any:
    """Returns the gradio page; gradio is imported here, so that the functions above work without it."""
    import gradio as gr

    def show(file: str | None, pasted: str, relevant: str, reverse: bool, samples: float) -> list[list[Any]]:
        try:
            return make_table(file, pasted, relevant, reverse, samples)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    with gr.Blocks(title="Piano retrieval", analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column():
                file = gr.File(
                    label="Scores (.csv) or embeddings (.npz)", file_types=[".csv", ".npz"], type="filepath"
                )
                pasted = gr.Textbox(EXAMPLE_SCORES, label="or scores, a row per query", lines=6)
                relevant = gr.Textbox(
                    label="Relevant columns, a line per query, counted from 0 (empty: column i answers row i)",
                    placeholder="0\n1, 2\n2\n3",
                    lines=4,
                )
                reverse = gr.Checkbox(True, label="Also items as queries")
                samples = gr.Slider(0, 5000, value=1000, step=100, label="Bootstrap draws for the 95 % intervals")
                button = gr.Button("Compute", variant="primary")
            table = gr.Dataframe(headers=HEADERS, label="Figures", interactive=False)
        button.click(show, [file, pasted, relevant, reverse, samples], table)
    return page


if __name__ == "__main__":
    build_page().launch()
