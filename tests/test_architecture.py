"""The house rules that a program can check: layers, sizes, one name per op, a test for every file."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*(ROOT / "pps_fast").rglob("*.py"), *(ROOT / "kernels").glob("*.py")])
NAMES = [path.relative_to(ROOT).as_posix() for path in FILES]


def _read_layers(text: str) -> tuple[dict[str, int], dict[str, set[str]]]:
    """Returns room -> number of its layer from the top, and room -> rooms of its own layer that it may import."""
    section = text.split("## Layers\n")[1].split("\n## ")[0]
    rows = [line.strip().strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    header, _, *body = rows
    if [cell.strip() for cell in header] != ["layer", "rooms and files", "may import besides the layers below"]:
        raise ValueError(f"CONTRIBUTING.md, Layers: unexpected columns {header}")
    layer, sideways = {}, {}
    for number, (_, rooms, besides) in enumerate(body):
        layer.update(dict.fromkeys(re.findall(r"`([\w/]+)`", rooms), number))
        for rule in filter(str.strip, besides.split(";")):
            room, *others = re.findall(r"`([\w/]+)`", rule)
            sideways[room] = set(others)
    return layer, sideways


LAYER, SIDEWAYS = _read_layers((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
ALONE = {"kernels"}  # imports nothing of the package but itself
RUN_TIME = {"torch", "numpy", "h5py", "safetensors", "tyro", "tqdm"}
THIRD_PARTY: dict[str, set[str]] = {
    **dict.fromkeys(
        (
            "__init__",
            "config",
            "config_tree",
            "presets",
            "ablations",
            "files",
            "streams",
            "interrupts",
            "text_table",
            "help_text",
        ),
        set(),
    ),
    **dict.fromkeys(("types", "ragged", "equations", "alignment/equations", "devices"), {"torch"}),
    "randomness": {"torch", "numpy"},
    "kernels": {"torch", "triton"},
    "ops": {"torch", "triton"},
    "demo": RUN_TIME | {"gradio"},
    "draw": {"torch", "numpy", "tyro", "matplotlib"},
    "lab": RUN_TIME | {"matplotlib", "submitit"},
    "prepare": RUN_TIME | {"transformers", "huggingface_hub"},
    "hub": {"tyro"},
    "features": RUN_TIME | {"av", "PIL", "transformers", "huggingface_hub"},
}

# longer than 300 lines: the most they may have, and why one file is right
LONG_FILES = {
    "pps_fast/config.py": (520, "every knob on one page; nearly all lines are fields and their one-line help"),
    "pps_fast/types.py": (320, "the legend of shapes and all records that stages exchange, on one page"),
    "pps_fast/equations.py": (540, "the paper's equations in the paper's order, on one page"),
}
# more than eight parameters, and why
MANY_PARAMETERS = {
    ("pps_fast/pipeline.py", "evaluate"): "a public function: every option of an evaluation by name",
    ("kernels/masked_attention.py", "masked_attention_fwd"): "an operator: tensors of an attention and of its rows",
    ("kernels/residual_norm.py", "residual_norm_fwd"): "an operator: tensors of a sub-layer's end and of its dropout",
}
# without tests/a/test_b.py of their own, and where they are tested
TESTED_ELSEWHERE: dict[str, str] = {
    "pps_fast/__init__.py": "tests/test_public.py",
    "pps_fast/draw/options.py": "tests/test_help_text.py",
    "pps_fast/draw/pictures.py": "tests/draw/test_main.py",
    "pps_fast/lab/options.py": "tests/test_help_text.py",
    "pps_fast/encoder/linear.py": "tests/ops/test_linear.py",
    "pps_fast/ops/__init__.py": "tests/ops/test_choices.py",
    # tests/support/compare.py, how tensors are compared, has the folder's name
    "pps_fast/compare.py": "tests/test_compare.py",
}
# kernels of what is no equation of the paper, and where their torch form or what calls for them stands
_IN_THEIR_OP = ("clip_adam", "dropout", "hidden_words", "linear_gradient", "ragged_rows", "word_positions")
NOT_IN_THE_PAPER = {name: f"pps_fast/ops/{name}.py" for name in _IN_THEIR_OP}
NOT_IN_THE_PAPER |= {"mask_keys": "pps_fast/randomness.py", "token_rows": "pps_fast/encoder/embedding.py"}
# may write to the terminal besides entry points, report.py and cli.py, and why
PRINTS = {
    "pps_fast/train/interrupt.py": "answers Ctrl-C from a signal handler",
    "pps_fast/train/progress.py": "shows how far a training is",
    "pps_fast/info.py": "a program of one file",
    "pps_fast/align.py": "a program of one file",
    "pps_fast/lab/command.py": "the half that two programs share",
    "pps_fast/blind.py": "a program of one file",
}
# may read environment variables, and why
READS_ENVIRONMENT = {
    "pps_fast/devices.py": "a user's own settings of the C library's allocator stay as they are",
    "pps_fast/distributed.py": "torchrun tells each process its place in no other way",
}
# may catch every exception, and why
CATCHES_ALL = {
    "pps_fast/hub/push.py": "the hub's library raises errors of many kinds; each is told in a sentence",
    "pps_fast/prepare/readers/encoders.py": "libraries of encoders raise bare Exceptions; each is told in a sentence",
    "pps_fast/prepare/readers/encoder_folder.py": "what the hub's library raises in a thread is handed over and told",
    "pps_fast/features/encoders.py": "libraries of encoders raise bare Exceptions; each is told in a sentence",
}
# may import pickle, and why
UNPICKLES = {
    "pps_fast/prepare/readers/plain_pickle.py": "the published vocabulary is a pickle; an allow-list unpickler reads it"
}


def _room(name: str) -> str:
    """Returns the room or file that a path belongs to in the table of layers, "pps_fast/ops/push.py" -> "ops"."""
    parts = Path(name).with_suffix("").parts
    if parts[-1] == "__main__":
        return "__main__"
    return "kernels" if parts[0] == "kernels" else _room_of_module(parts[1:])


def _room_of_module(parts: Sequence[str]) -> str:
    """Returns the room of a module of the package: its file, where the table has that apart from its room."""
    file = "/".join(parts[:2])
    return file if file in LAYER else parts[0]


def _imports(tree: ast.AST) -> Iterator[str]:
    """Yields dotted names of what a file imports, anywhere in it; "from pps_fast import x" as "pps_fast.x"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _import_faults(name: str, source: str) -> list[str]:
    room, faults = _room(name), []
    if room not in LAYER:
        return [f"{name}: '{room}' has no place in the table of layers in CONTRIBUTING.md"]
    known = SIDEWAYS.get(room, set()) | {room}
    if room == "__main__":
        # a program may know what else stands in its own folder
        known |= {other for other in LAYER if other.split("/")[0] == Path(name).parts[1]}
    for target in _imports(ast.parse(source)):
        root, *rest = target.split(".")
        if root == "pps_fast":
            # "from pps_fast import __version__" meets no layer
            met = _room_of_module(rest) if rest and not rest[0].startswith("__") else room
            is_below = LAYER.get(met, -1) > LAYER[room] and room not in ALONE
            if met not in known and not is_below:
                faults.append(f"{name}: '{room}' may not import {target}: it is no layer below")
        elif root in ("", "tests", "benchmarks", "kernels"):
            faults.append(f"{name}: imports {target}; write pps_fast.x in full, and never tests or benchmarks")
        elif root not in sys.stdlib_module_names and root not in THIRD_PARTY.get(room, RUN_TIME):
            faults.append(f"{name}: '{room}' may not import {target}")
    return faults


def _functions(source: str) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Yields every function with whether it is a Triton kernel."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node, any("jit" in ast.unparse(decorator) for decorator in node.decorator_list)


def _size_faults(name: str, source: str) -> list[str]:
    lines, faults = len(source.splitlines()), []
    limit = LONG_FILES[name][0] if name in LONG_FILES else 400 if _room(name) == "kernels" else 300
    if lines > limit:
        faults.append(f"{name}: {lines} lines, at most {limit}")
    for function, is_kernel in _functions(source):
        length = function.end_lineno - function.lineno + 1
        if length > (60 if is_kernel else 40):
            faults.append(f"{name}: {function.name} has {length} lines, at most {60 if is_kernel else 40}")
        arguments = function.args
        names = [item.arg for item in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        count = len([item for item in names if item not in ("self", "cls")])
        # a kernel's parameters are pointers, strides and block sizes
        if count > 8 and not is_kernel and (name, function.name) not in MANY_PARAMETERS:
            faults.append(f"{name}: {function.name} has {count} parameters, at most 8")
    return faults


def _habit_faults(name: str, source: str) -> list[str]:
    may_print = _room(name) == "__main__" or Path(name).name in ("report.py", "cli.py") or name in PRINTS
    faults = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            faults.append("assert: raise ValueError for what a user passed")
        elif isinstance(node, ast.ExceptHandler) and _catches_everything(node) and name not in CATCHES_ALL:
            faults.append("catches every exception: name the ones that are expected")
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv", "os.environb"):
            if name not in READS_ENVIRONMENT:
                faults.append("reads the environment: make it a config field")
        elif isinstance(node, ast.Call):
            faults += _call_faults(node, may_print)
    if name not in UNPICKLES:
        faults += [f"imports {target}" for target in _imports(ast.parse(source)) if _unpickles(target)]
    return [f"{name}: {fault}" for fault in faults]


def _unpickles(target: str) -> bool:
    root, *rest = target.split(".")
    # error classes load nothing; torch raises one of them
    return root in ("pickle", "dill", "cloudpickle", "joblib") and not (rest and rest[-1].endswith("Error"))


def _catches_everything(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(ast.unparse(item) in ("Exception", "BaseException") for item in caught)


def _call_faults(call: ast.Call, may_print: bool) -> list[str]:
    called = ast.unparse(call.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if called == "print" and not may_print:
        return ["prints: return the text, or raise"]
    if called == "torch.load" and keywords.get("weights_only") != "True":
        return ["torch.load without weights_only=True"]
    if called in ("np.load", "numpy.load") and keywords.get("allow_pickle", "False") != "False":
        return ["numpy.load with allow_pickle"]
    return []


def _expected_test(name: str) -> str:
    """Returns where a file's tests live: "pps_fast/a/b.py" -> "tests/a/test_b.py"."""
    path = Path(name)
    folder = "kernels" if path.parts[0] == "kernels" else "/".join(path.parts[1:-1])
    return "/".join(part for part in ("tests", folder, f"test_{path.stem.strip('_')}.py") if part)


@pytest.mark.parametrize("name", NAMES)
def test_layers_import_only_what_lies_below_them(name: str) -> None:
    faults = _import_faults(name, (ROOT / name).read_text(encoding="utf-8"))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", NAMES)
def test_files_functions_and_signatures_are_short(name: str) -> None:
    faults = _size_faults(name, (ROOT / name).read_text(encoding="utf-8"))
    assert not faults, "\n".join(faults)


def test_test_files_and_scripts_are_short() -> None:
    others = [ROOT / "setup.py", *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in others}
    # more than the code's limit, for tables of cases and oracles
    assert not {name: lines for name, lines in lengths.items() if lines > 400}


@pytest.mark.parametrize("name", NAMES)
def test_code_keeps_the_habits(name: str) -> None:
    faults = _habit_faults(name, (ROOT / name).read_text(encoding="utf-8"))
    assert not faults, "\n".join(faults)


def test_every_file_has_the_test_file_of_its_name() -> None:
    # a kernel is tested through its op, an __init__.py without code needs no test
    tested = [name for name in NAMES if name.startswith("pps_fast/") and (ROOT / name).stat().st_size > 0]
    places = {name: TESTED_ELSEWHERE.get(name, _expected_test(name)) for name in tested}
    missing = [f"{name}: no {place}" for name, place in places.items() if not (ROOT / place).is_file()]
    assert not missing, "\n".join(missing)


def test_every_kernel_has_one_name_in_ops_equations_and_tests() -> None:
    kernels = {path.stem for path in (ROOT / "kernels").glob("*.py")} - {"launch", "tiles"}
    assert kernels, "kernels/ is empty"
    pages = [ROOT / "pps_fast" / page for page in ("equations.py", "alignment/equations.py")]
    defined = {function.name for page in pages for function, _ in _functions(page.read_text(encoding="utf-8"))}
    for kernel in sorted(kernels):
        assert (ROOT / "pps_fast" / "ops" / f"{kernel}.py").is_file(), f"kernels/{kernel}.py has no op of its name"
        assert (ROOT / "tests" / "ops" / f"test_{kernel}.py").is_file(), f"kernels/{kernel}.py has no test of its op"
        # one name for ops that are launched together
        together = {"pull_push": ["pull", "push"], "component_heads": ["centers", "widths"]}
        together["attentive_pooling"] = ["importance", "mixture", "peak_mixture"]
        # with keys that are the values
        together["row_attention"] = ["masked_attention"]
        if kernel in NOT_IN_THE_PAPER:
            assert (ROOT / NOT_IN_THE_PAPER[kernel]).is_file() and kernel not in defined
            continue
        parts = together.get(kernel, [kernel])
        for part in parts:
            is_defined = any(name == part or name.startswith(f"{part}_") for name in defined)
            assert is_defined, f"no page of equations has {part}, the equation of kernels/{kernel}.py"


def test_allowances_are_still_needed() -> None:
    gone = sorted({*LONG_FILES, *TESTED_ELSEWHERE, *PRINTS, *UNPICKLES} - set(NAMES))
    assert not gone, f"allowed but absent: {gone}"
    short = [name for name in LONG_FILES if len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 300]
    assert not short, f"no longer over 300 lines: {short}"


def test_every_room_in_the_table_of_layers_is_there() -> None:
    rooms = {_room(name) for name in NAMES} | {"__init__", "__main__"}
    assert set(LAYER) <= rooms, f"in CONTRIBUTING.md and not in the package: {sorted(set(LAYER) - rooms)}"
    assert set(SIDEWAYS) <= set(LAYER)
    for room, others in SIDEWAYS.items():
        assert {LAYER[other] for other in others} == {LAYER[room]}, f"{room}: the last column is for its own layer"


def test_third_party_packages_are_those_setup_declares() -> None:
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    declared = setup.split("install_requires=[")[1].split("]")[0]
    assert all(f"{package}>=" in declared for package in RUN_TIME | {"triton"})


@pytest.mark.parametrize(
    ("name", "source", "faults"),
    [
        ("pps_fast/data/x.py", "from pps_fast.model import PPS", 1),
        ("pps_fast/data/x.py", "def f():\n    import pps_fast.model", 1),
        ("pps_fast/eval/x.py", "from pps_fast import equations, config", 0),
        ("pps_fast/eval/x.py", "from pps_fast.train.loop import train", 1),
        ("pps_fast/train/x.py", "from pps_fast.eval.evaluate import score", 1),
        ("pps_fast/runs/x.py", "from pps_fast.train.optimizer import Adam", 1),
        ("pps_fast/lab/x.py", "from pps_fast.pipeline import evaluate", 0),
        ("pps_fast/lab/x.py", "from pps_fast.info import versions", 1),
        ("pps_fast/lab/x.py", "from pps_fast.draw.style import render", 0),
        ("pps_fast/draw/x.py", "from pps_fast.lab.tables import Table", 1),
        ("pps_fast/data/x.py", "from pps_fast.encoder.embedding import x", 1),
        ("pps_fast/proposals/x.py", "from pps_fast.reconstructor.words import x", 0),
        ("pps_fast/reconstructor/x.py", "from pps_fast.proposals.layout import x", 1),
        ("pps_fast/ops/x.py", "from pps_fast.alignment import equations", 0),
        ("pps_fast/ops/x.py", "from pps_fast.alignment.fit import x", 1),
        ("pps_fast/ops/x.py", "import pps_fast.alignment", 1),
        ("pps_fast/alignment/equations.py", "from pps_fast.equations import x", 0),
        ("pps_fast/alignment/equations.py", "from pps_fast.alignment.fit import x", 1),
        ("pps_fast/alignment/fit.py", "from pps_fast.alignment.equations import x", 0),
        ("pps_fast/alignment/__main__.py", "from pps_fast.alignment.equations import x", 0),
        ("pps_fast/config.py", "from pps_fast.types import Batch", 1),
        ("pps_fast/config_tree.py", "from pps_fast.config import PPSConfig", 0),
        ("pps_fast/eval/x.py", "from pps_fast import __version__", 0),
        ("pps_fast/eval/__main__.py", "from pps_fast.runs.checkpoint import load_model", 0),
        ("pps_fast/draw/x.py", "from pps_fast.runs.trace import read_trace", 0),
        ("pps_fast/draw/x.py", "from pps_fast.newcomer import x", 1),
        ("pps_fast/eval/x.py", "import matplotlib", 1),
        ("pps_fast/train/x.py", "from pps_fast.predict import predict", 0),
        ("pps_fast/train/x.py", "from . import loop", 1),
        ("pps_fast/data/x.py", "import pandas", 1),
        ("pps_fast/newcomer.py", "", 1),
        ("pps_fast/presets.py", "import torch", 1),
        ("pps_fast/ops/x.py", "from kernels.x import f", 1),
        ("kernels/x.py", "import pps_fast.config", 1),
        ("kernels/x.py", "import torch\nimport triton.language as tl\nfrom pps_fast.kernels import launch", 0),
    ],
)
def test_import_rule_sees(name: str, source: str, faults: int) -> None:
    assert len(_import_faults(name, source)) == faults


@pytest.mark.parametrize(
    ("name", "source", "faults"),
    [
        ("pps_fast/x.py", "#\n" * 301, 1),
        ("pps_fast/config.py", "#\n" * 521, 1),
        ("pps_fast/equations.py", "#\n" * 540, 0),
        ("pps_fast/equations.py", "#\n" * 541, 1),
        ("kernels/x.py", "#\n" * 301, 0),
        ("kernels/x.py", "#\n" * 401, 1),
        ("pps_fast/x.py", "def f():\n" + "    pass\n" * 40, 1),
        ("pps_fast/x.py", "def f():\n" + "    pass\n" * 39, 0),
        ("kernels/x.py", "@triton.jit\ndef f(a, b, c, d, e, f, g, h, i):\n" + "    pass\n" * 59, 0),
        ("pps_fast/x.py", "class A:\n    def f(self, a, b, c, d, *, e, f, g, h): pass", 0),
        ("pps_fast/x.py", "def f(a, b, c, d, *, e, f, g, h, i): pass", 1),
    ],
)
def test_size_rule_sees(name: str, source: str, faults: int) -> None:
    assert len(_size_faults(name, source)) == faults


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ("assert x", 1),
        ("try:\n    pass\nexcept Exception:\n    pass", 1),
        ("try:\n    pass\nexcept:\n    pass", 1),
        ("try:\n    pass\nexcept (OSError, BaseException):\n    pass", 1),
        ("try:\n    pass\nexcept (OSError, KeyError):\n    pass", 0),
        ("import pickle", 1),
        ("from pickle import UnpicklingError", 0),
        ("import os\nx = os.environ['A']", 1),
        ("print(1)", 1),
        ("torch.load(path)", 1),
        ("torch.load(path, weights_only=True)", 0),
        ("np.load(path, allow_pickle=True)", 1),
        ("np.load(path, allow_pickle=False)", 0),
    ],
)
def test_habit_rule_sees(source: str, faults: int) -> None:
    assert len(_habit_faults("pps_fast/data/x.py", source)) == faults
