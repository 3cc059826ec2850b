"""The import contract: who may import whom, and what a bare GPU node can do without."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {
    "detr_kernels": ROOT / "kernels" / "detr_kernels",
    "box_store": ROOT / "box_store",
    "teacher_infer": ROOT / "teacher_infer",
    "student_train": ROOT / "student_train",
    "teach_detr": ROOT / "pipelines" / "teach_detr",
}
# our packages that each package may import; the two exceptions by design are teacher adapters
ALLOWED = {
    "detr_kernels": set(),
    "box_store": set(),
    "teacher_infer": {"box_store"},
    "student_train": {"box_store", "detr_kernels"},
    "teach_detr": {"box_store", "detr_kernels", "student_train", "teacher_infer"},
}
EXCEPTIONS = {
    ("teacher_infer/adapters/student.py", "student_train"),
    ("teacher_infer/adapters/mmcv_ops.py", "detr_kernels"),
}
# modules that are themselves imported only when their library is wanted
ENTERED_LATE = {
    "teacher_infer/workers/ray_pool.py",
    "teacher_infer/workers/ray_cluster.py",
    "kernels/detr_kernels/deform_attn/numba_kernels.py",
    "kernels/detr_kernels/matching/numba_kernels.py",
}
FRAMEWORKS = {"mmdet", "mmengine", "mmcv", "ultralytics", "transformers", "onnxruntime"}
# what the trainer itself offers more with: none is a teacher's
EXTRAS = {"matplotlib", "cv2", "wandb", "faster_coco_eval", "hotcoco", "onnx", "onnxruntime"}
OPTIONAL = FRAMEWORKS | {
    "duckdb", "ray", "matplotlib", "cv2", "wandb", "faster_coco_eval", "onnx", "numba",
    "simplejpeg", "hotcoco",
}  # fmt: skip


def files():
    return [
        (package, path) for package, root in SOURCES.items() for path in sorted(root.rglob("*.py"))
    ]


def imported(path: Path, *, only_at_import: bool = False) -> set[str]:
    """Top-level names of the modules a file imports, anywhere or only when it is imported."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if only_at_import and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                names.update(alias.name.split(".")[0] for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.level == 0 and child.module:
                names.add(child.module.split(".")[0])
            visit(child)

    visit(ast.parse(path.read_text()))
    return names


@pytest.mark.parametrize(
    ("package", "path"), files(), ids=lambda value: value if isinstance(value, str) else value.name
)
def test_a_package_imports_only_the_packages_below_it(package: str, path: Path) -> None:
    ours = imported(path) & (set(SOURCES) - {package})
    relative = path.relative_to(ROOT).as_posix()
    allowed = ALLOWED[package] | {name for file, name in EXCEPTIONS if file == relative}
    assert ours <= allowed, f"{relative} imports {sorted(ours - allowed)}"


@pytest.mark.parametrize(
    ("package", "path"), files(), ids=lambda value: value if isinstance(value, str) else value.name
)
def test_optional_libraries_are_imported_when_used_not_at_import(package: str, path: Path) -> None:
    relative = path.relative_to(ROOT).as_posix()
    early = imported(path, only_at_import=True) & OPTIONAL
    assert not early or relative in ENTERED_LATE, f"{relative} imports {sorted(early)} at import"


@pytest.mark.parametrize("package", ["box_store", "student_train", "detr_kernels"])
def test_the_trainer_and_what_it_stands_on_name_no_teacher_framework(package: str) -> None:
    allowed = {
        "box_store": {"duckdb", "simplejpeg"},
        "student_train": EXTRAS,
        "detr_kernels": {"numba"},
    }[package]
    for path in sorted(SOURCES[package].rglob("*.py")):
        found = imported(path) & OPTIONAL
        assert found <= allowed, f"{path.relative_to(ROOT)} imports {sorted(found - allowed)}"


# a family's presets, parity and names on the hub stand on more than its model and are loaded by
# name: they belong to the floors above, wherever they lie
UPPER_FLOORS = {
    "presets": "student_train.presets.families",
    "parity": "student_train.parity.families",
    "hub": "student_train.models.hub",
}


def modules(package: str) -> dict[str, Path]:
    """Every module of a package and its file."""
    root, found = SOURCES[package], {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


def graph(package: str) -> dict[str, set[str]]:
    """Which modules each module imports: anywhere, under TYPE_CHECKING and in functions too."""
    known = modules(package)
    found: dict[str, set[str]] = {}
    for module, path in known.items():
        named: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    named.add(whole if whole in known else node.module)
            elif isinstance(node, ast.Import):
                named.update(alias.name for alias in node.names)
        found[module] = (named & known.keys()) - {module}
    return found


def room(module: str, depth: int) -> str:
    """The folder or module that stands for a module among those at `depth`."""
    parts = module.split(".")
    if parts[1:3] == ["models", "families"] and parts[-1] in UPPER_FLOORS:
        parts = UPPER_FLOORS[parts[-1]].split(".")
    return ".".join(parts[: depth + 1])


def rooms(package: str, depth: int) -> dict[str, set[str]]:
    """Folders, and the modules beside them, with what they import of one another."""
    found: dict[str, set[str]] = {}
    for module, imports in graph(package).items():
        mine = room(module, depth)
        for other in (room(each, depth) for each in imports):
            # a package's face gathers what lies in it
            face = mine.startswith(f"{other}.") or other.startswith(f"{mine}.")
            if other != mine and not face:
                found.setdefault(mine, set()).add(other)
    return found


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Some circle of a graph, in order; nothing if there is none."""
    done: set[str] = set()

    def search(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return []
        done.add(node)
        for other in sorted(edges.get(node, ())):
            if found := search(other, [*way, node]):
                return found
        return []

    return next((found for node in sorted(edges) if (found := search(node, []))), [])


@pytest.mark.parametrize("package", SOURCES)
def test_imports_go_in_no_circle(package: str) -> None:
    assert circle(graph(package)) == []


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("package", SOURCES)
def test_folders_import_in_one_direction(package: str, depth: int) -> None:
    assert circle(rooms(package, depth)) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


@pytest.mark.parametrize("package", SOURCES)
def test_a_folder_has_a_caption(package: str) -> None:
    for path in SOURCES[package].rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path.relative_to(ROOT)


@pytest.mark.parametrize("package", SOURCES)
def test_a_root_reads_as_a_table_of_contents(package: str) -> None:
    inside = [path for path in SOURCES[package].iterdir() if not path.name.startswith(("_", "py."))]
    assert len([path for path in inside if path.is_dir()]) <= 14
    assert len([path for path in inside if path.is_file()]) <= 12


BARE_NODE = """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({absent!r}))  # None: not installed, for import and find_spec
for name in ("student_train", "detr_kernels", "box_store"):
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith(("__main__", *{late!r})):
            importlib.import_module(module.name)
"""


def test_a_bare_gpu_node_can_import_the_trainer() -> None:
    """Every module of the trainer imports without DuckDB, Ray or a teacher's framework."""
    code = BARE_NODE.format(absent=OPTIONAL, late=[Path(file).stem for file in ENTERED_LATE])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


COMMANDS = """
import sys
import box_store, detr_kernels, student_train.cli, teach_detr.cli, teacher_infer.cli
print(sorted({optional!r} & {{name.split(".")[0] for name in sys.modules}}))
"""


def test_starting_a_command_loads_no_optional_library() -> None:
    """What a command line can say without Ray or a framework, it says without loading one."""
    code = COMMANDS.format(optional=OPTIONAL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
