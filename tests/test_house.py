"""The house rules that a reader of the code relies on, checked by walking the syntax of lib/."""

import ast
from pathlib import Path

LIBRARY = Path(__file__).parents[1] / "lib" / "batchscaling"
LONGEST = 45
FILES = sorted(LIBRARY.rglob("*.py"))


def tree(path):
    return ast.parse(path.read_text("utf-8"))


def functions(path):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree(path)) if isinstance(node, kinds)]


def body_lines(function):
    """Return the lines of a function without its head and its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def is_module(module, name):
    """Whether ``from module import name`` names a file of the library."""
    folder = LIBRARY.parent.joinpath(*module.split("."))
    return (folder / f"{name}.py").exists() or (folder / name).is_dir()


def private_names(path):
    """Return the private names that a file takes from others of the library."""
    found = []
    modules = {}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("batchscaling"):
            for alias in node.names:
                if is_module(node.module, alias.name):
                    modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                elif alias.name.startswith("_") and not alias.name.startswith("__"):
                    found.append(f"{node.module}.{alias.name}")
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            private = node.attr.startswith("_") and not node.attr.startswith("__")
            if private and node.value.id in modules:
                found.append(f"{modules[node.value.id]}.{node.attr}")
    return found


def test_no_private_name_crosses_a_file():
    found = {str(path.relative_to(LIBRARY)): private_names(path) for path in FILES}
    assert {path: names for path, names in found.items() if names} == {}


def test_no_option_that_is_a_bool_goes_by_its_place():
    places = [
        (f"{path.name}: {f.name}", f.args.defaults) for path in FILES for f in functions(path)
    ]
    assert [
        place
        for place, defaults in places
        if any(isinstance(d, ast.Constant) and isinstance(d.value, bool) for d in defaults)
    ] == []


def test_no_body_in_training_is_long():
    paths = sorted((LIBRARY / "training").rglob("*.py"))
    lengths = {f"{path.name}: {f.name}": body_lines(f) for path in paths for f in functions(path)}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}


def test_the_walk_finds_what_it_looks_for(tmp_path):
    path = tmp_path / "guilty.py"
    path.write_text(
        "from batchscaling import _validation as check\n"
        "from batchscaling.training import loop\n"
        "from batchscaling.training.rows import _take\n"
        "loop._check_targets\n"
        "check._shown\n"
    )
    assert private_names(path) == [
        "batchscaling.training.rows._take",
        "batchscaling.training.loop._check_targets",
        "batchscaling._validation._shown",
    ]


def test_validation_is_imported_in_one_way():
    files = (path for path in FILES if "from batchscaling._validation" in path.read_text("utf-8"))
    assert [path.name for path in files] == []
