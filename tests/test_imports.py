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
}
FRAMEWORKS = {"mmdet", "mmengine", "mmcv", "ultralytics", "transformers", "onnxruntime"}
# what the trainer itself offers more with: none is a teacher's
EXTRAS = {"matplotlib", "cv2", "wandb", "faster_coco_eval", "onnx", "onnxruntime"}
OPTIONAL = FRAMEWORKS | {
    "duckdb", "ray", "matplotlib", "cv2", "wandb", "faster_coco_eval", "onnx", "numba",
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
    allowed = {"box_store": {"duckdb"}, "student_train": EXTRAS, "detr_kernels": {"numba"}}[package]
    for path in sorted(SOURCES[package].rglob("*.py")):
        found = imported(path) & OPTIONAL
        assert found <= allowed, f"{path.relative_to(ROOT)} imports {sorted(found - allowed)}"


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
