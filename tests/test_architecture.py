"""The design's rules on imports and names, and that starting stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "crnn"
FILES = sorted(SOURCE.rglob("*.py"))

# From the bottom up. Every file belongs to the layer that lists it or its folder, and imports from layers below only,
# or from its own. Recognizer and runtime look into higher or equal layers nowhere.
LAYERS = [
    {"errors", "charset", "marks", "card", "metrics", "document", "config", "presets", "machine", "usercache"},
    {
        "header",
        "image",
        "views",
        "ctc",
        "boxes",
        "show",
        "pattern",
        "lexicon",
        "language",
        "splitting",
        "words",
        "decoding",
    },
    {"model", "data", "synth"},
    {"checkpoint", "runtime", "export", "pretrained"},
    {"batching", "doubt", "recognizer"},
    {
        "optimiser",
        "devices",
        "learner",
        "journal",
        "callbacks",
        "replay",
        "samples",
        "memory",
        "savedmodel",
        "training",
        "evaluation",
        "mislabelled",
        "breakdown",
        "predictions",
        "report",
        "benchmark",
        "bulk",
        "quantise",
        "page",
    },
    {"serve"},
    {"cli"},
    {"__main__"},
]
HEAVY_FREE = {"batching", "doubt", "recognizer", "page", "serve"}  # may not load these:
HEAVY = {"crnn.data", "crnn.synth", "crnn.training", "torch"}
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "tools", "misc"}


def part(file: Path) -> str:
    """The file's place in LAYERS: its folder in the package, or its own name."""
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(file: Path) -> set[str]:
    """Full names of the modules that a file imports anywhere, whether at the top or in a function."""
    package = ["crnn", *file.relative_to(SOURCE).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def parts_imported(file: Path) -> set[str]:
    known = set().union(*LAYERS)
    return {name.split(".")[1] for name in imported(file) if name.startswith("crnn.") and name.split(".")[1] in known}


def layer(name: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if name in names)


def module(file: Path) -> str:
    """Dotted name: src/crnn/data/labels.py is crnn.data.labels."""
    return ".".join(["crnn", *file.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")


def reached(start: set[str]) -> set[str]:
    """Names of everything that the modules load, directly and through the package's own modules."""
    files = {module(file): file for file in FILES}
    found: set[str] = set()
    new = start
    while new:
        found |= new
        new = set().union(*(imported(files[name]) for name in new if name in files and name != "crnn")) - found
    return found


@pytest.mark.parametrize(
    "file", [f for f in FILES if f != SOURCE / "__init__.py"], ids=lambda f: str(f.relative_to(SOURCE))
)
def test_imports_point_down(file):
    own = part(file)
    assert own in set().union(*LAYERS), f"{file.name} has no place in the design's layers"
    for name in parts_imported(file) - {own}:
        assert layer(name) <= layer(own), f"{file.relative_to(ROOT)} imports crnn.{name}, which is above it"


def test_no_two_parts_import_each_other():
    names = {part(file) for file in FILES} - {"__init__"}
    uses = {name: set().union(*(parts_imported(f) for f in FILES if part(f) == name)) - {name} for name in names}
    assert [(a, b) for a in names for b in uses[a] if a < b and a in uses.get(b, ())] == []


def starts(name: str, prefixes: set[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


@pytest.mark.parametrize("file", [f for f in FILES if part(f) in HEAVY_FREE], ids=lambda f: str(f.relative_to(SOURCE)))
def test_reading_and_serving_import_neither_training_nor_torch(file):
    assert {name for name in imported(file) if starts(name, HEAVY)} == set()


def test_rendering_never_imports_torch():
    modules = {module(file) for file in FILES if part(file) == "synth"}
    assert {name for name in reached(modules) if starts(name, {"torch", "lightning"})} == set()


def test_the_bottom_layer_is_standard_library():
    allowed = sys.stdlib_module_names | {"crnn", "rapidfuzz"}
    for file in FILES:
        if part(file) in LAYERS[0]:
            assert {name.split(".")[0] for name in imported(file)} <= allowed, file


def test_nothing_is_named_after_nothing():
    for path in [*SOURCE.rglob("*"), *(ROOT / "tests").glob("*")]:
        stem = path.name.removesuffix(".py").lower()
        assert stem not in FORBIDDEN_NAMES, path
        assert not stem.rsplit("_", 1)[-1].removeprefix("v").isdigit() or "_v" not in stem, path


def test_folders_are_one_level_deep():
    for file in FILES:
        assert len(file.relative_to(SOURCE).parts) <= 2, file


def modules_after(code: str) -> set[str]:
    """Top-level modules that are loaded once the code has run in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint('loaded', *{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


SLOW = {"torch", "lightning", "cv2", "numpy", "openvino", "onnx", "onnxruntime", "PIL", "rapidfuzz"}


@pytest.mark.parametrize("command", ["--help", "read --help", "charset --help"])
def test_help_loads_nothing_slow(command):
    arguments = ["crnn", *command.split()]
    code = f"import sys\nfrom crnn.cli import main\nsys.argv = {arguments}\ntry: main()\nexcept SystemExit: pass"
    assert modules_after(code) & (SLOW | {"rich"}) == set()


def test_import_crnn_loads_nothing_slow():
    assert modules_after("import crnn; crnn.Charset('abc'); crnn.Line('a', 1.0)") & SLOW == set()


def test_reading_loads_no_torch(bar_model):
    code = f"import crnn, numpy\ncrnn.load({str(bar_model)!r}).read(numpy.zeros((32, 40, 3), 'uint8'))"
    loaded = modules_after(code)
    assert "openvino" in loaded
    assert loaded & {"torch", "lightning", "onnx", "onnxruntime", "PIL", "fontTools"} == set()


def test_every_public_name_exists():
    import crnn

    for name in crnn.__all__:
        assert getattr(crnn, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = crnn.lode
