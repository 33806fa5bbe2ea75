"""The names that the package offers: the same objects in every order of imports, and loaded only when they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pps_fast

ROOT = Path(__file__).parents[1]
# modules that a user may import before or after a name
MODULES = ("pps_fast.train", "pps_fast.eval", "pps_fast.eval.evaluate", "pps_fast.model", "pps_fast.presets")


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_loads_no_torch_until_a_name_needs_it() -> None:
    code = """
import sys, pps_fast
assert set(pps_fast.__all__) <= set(dir(pps_fast)) and "__version__" in dir(pps_fast)
pps_fast.PRESETS, pps_fast.PPSConfig, pps_fast.override
assert "torch" not in sys.modules and "numpy" not in sys.modules and "tyro" not in sys.modules
pps_fast.PPS
assert "torch" in sys.modules
"""
    _python(code)


def test_names_are_the_same_object_at_every_access_before_and_after_other_imports() -> None:
    # each order in a child of a process that has loaded torch but not the package
    code = f"""
import importlib, os, sys, traceback
import h5py, safetensors.torch, torch, torch._dynamo, tqdm, tyro
import pps_fast
homes = pps_fast._HOMES
del sys.modules["pps_fast"]
for name in homes:
    for first_modules, then_modules in (((), {MODULES!r}), ({MODULES!r}, ()), ({MODULES[:1]!r}, {MODULES[1:]!r})):
        child = os.fork()
        if child == 0:
            try:
                import pps_fast
                for module in first_modules: importlib.import_module(module)
                first = getattr(pps_fast, name)
                for module in then_modules: importlib.import_module(module)
                assert getattr(pps_fast, name) is first is getattr(importlib.import_module(homes[name]), name)
                # a package of that name is no public name
                assert type(pps_fast.train).__name__ == "module"
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, (name, first_modules, then_modules)
print("all")
"""
    assert _python(code) == "all\n"


def test_star_import_brings_exactly_the_public_names() -> None:
    code = "before = set(globals()); from pps_fast import *; print(sorted(set(globals()) - before - {'before'}))"
    assert ast.literal_eval(_python(code)) == sorted(pps_fast.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pps_fast' has no attribute 'nonsense'"):
        pps_fast.nonsense  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        from pps_fast import nonsense  # noqa: F401


def test_no_public_name_is_a_module_of_the_package() -> None:
    modules = {path.stem for path in (ROOT / "pps_fast").iterdir()}
    assert not modules & set(pps_fast.__all__)


def test_what_a_type_checker_sees_is_what_is_loaded() -> None:
    tree = ast.parse(Path(pps_fast.__file__).read_text(encoding="utf-8"))
    (checked,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = {alias.asname: node.module for node in checked.body for alias in node.names}
    assert imports == pps_fast._HOMES
    assert sorted(imports) == sorted(pps_fast.__all__)
