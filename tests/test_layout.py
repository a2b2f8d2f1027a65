"""The import picture: arrows go one way, and no file imports itself through others."""

import ast
import traceback
from pathlib import Path

import pytest

import modeling_pianobind
from modeling_pianobind import embedding_pianobind as embedding
from modeling_pianobind.index import folder_index

ROOT = Path(__file__).parent.parent
FOLDERS = ("modeling_pianobind", "training", "evaluation", "model_cards")
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if "hub_files" not in path.parts and path.name != "__init__.py"
}


def imports_of(module: str) -> set[str]:
    """Files that a file imports, inside functions too; not those that only type checkers read."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    for_checkers = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node)
    ]
    left_out = {id(inner) for node in for_checkers for inner in ast.walk(node)}
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in left_out:
            above = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            names |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names & FILES.keys() - {module}


def test_no_file_imports_itself_through_others():
    graph, done = {module: imports_of(module) for module in FILES}, set()

    def walk(module, path):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for imported in graph[module]:
                walk(imported, [*path, module])
            done.add(module)

    for module in FILES:
        walk(module, [])


@pytest.mark.parametrize(
    ("folder", "refused"),
    [
        ("modeling_pianobind", ("training", "evaluation", "model_cards")),
        ("modeling_pianobind.service", ("modeling_pianobind.index", "modeling_pianobind.app")),
        ("modeling_pianobind.index", ("modeling_pianobind.app", "modeling_pianobind.cli")),
        ("modeling_pianobind.metric", ("modeling_pianobind.index", "modeling_pianobind.service")),
        ("training", ("evaluation",)),
        ("training.data", ("training.loop",)),
        ("training.common", ("training.data", "training.loop", "training.hub")),
        ("evaluation", ("training.loop", "training.hub", "training.train", "training.build_dataset")),
        ("model_cards", ("training", "evaluation")),
    ],
)
def test_arrows_go_one_way(folder, refused):
    wrong = {
        f"{module} -> {imported}"
        for module in FILES
        if f"{module}.".startswith(f"{folder}.")
        for imported in imports_of(module)
        if f"{imported}.".startswith(tuple(f"{name}." for name in refused))
    }
    assert wrong == set()


def test_editors_see_the_names_that_are_loaded_when_they_are_used():
    package = ROOT / "modeling_pianobind"
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    seen = {alias.asname: line.module for line in block.body for alias in line.names if alias.asname == alias.name}
    assert seen == modeling_pianobind._HOMES
    assert (package / "py.typed").is_file() and "py.typed" in (ROOT / "setup.cfg").read_text()


def test_flat_modules_import_flat_modules_only():
    flat = {module for module in FILES if module.startswith("modeling_pianobind.") and module.endswith("_pianobind")}
    assert {f"{module} -> {other}" for module in flat for other in imports_of(module) - flat} == set()


def test_a_search_of_a_folder_enters_six_files_until_it_embeds(pianobind, corpus, monkeypatch):
    """Files of the package on the stack, beside `cli.py`; and the path is examined once."""
    files, asked, computing, is_index = set(), [], embedding.computing, folder_index.is_index

    def compute(*arguments):
        files.update(Path(frame.filename) for frame in traceback.extract_stack()[:-1])
        return computing(*arguments)

    monkeypatch.setattr(embedding, "computing", compute)
    monkeypatch.setattr(folder_index, "is_index", lambda path: asked.append(path) or is_index(path))
    assert pianobind("search", corpus, "calm")[0] == 0
    entered = {path.name for path in files if path.is_relative_to(ROOT / "modeling_pianobind")} - {"cli.py"}
    assert "embedding_pianobind.py" in entered and len(entered) <= 6, entered
    assert asked == [str(corpus)]
