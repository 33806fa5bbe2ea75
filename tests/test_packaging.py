"""Every way to install finds `kernels/` as pps_fast.kernels and leaves a third-party package `kernels` alone."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import pps_fast

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("setup.py", "pyproject.toml", "LICENSE", "README.md", "pps_fast", "kernels")
THEIRS = "MARKER = 'the kernels package of somebody else'\n"
PROBE = """
import importlib.util, json, kernels, sys
before = list(sys.path)
import pps_fast
assert sys.path == before
spec = importlib.util.find_spec("pps_fast.kernels.gaussian_mask")
print(json.dumps({
    "ours": spec and spec.origin,
    "package": pps_fast.__file__,
    "version": pps_fast.__version__,
    "theirs": kernels.MARKER,
    "mixed": importlib.util.find_spec("kernels.gaussian_mask") is not None,
}))
"""


def _require_build_tools() -> None:
    if importlib.util.find_spec("pip") is None:
        pytest.skip("needs pip in this environment")
    try:
        version = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs setuptools >= 77 in this environment (extra 'test')")
    if Version(version) < Version("77"):
        pytest.skip(f"needs setuptools >= 77 in this environment (extra 'test'), found {version}")


def _run(*command: str | Path, cwd: Path) -> str:
    """Returns the command's output; the developer's import settings do not reach it."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def _pip(python: Path | str, *arguments: str | Path, cwd: Path) -> None:
    # no index: nothing may be downloaded, the build tools come from this environment
    _run(python, "-m", "pip", *arguments, "--no-deps", "--no-build-isolation", "--no-index", "--quiet", cwd=cwd)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, so that building leaves nothing in the real checkout."""
    target = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, target / name)
    return target


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    _require_build_tools()
    target = tmp_path_factory.mktemp("wheel")
    _pip(sys.executable, "wheel", checkout, "--wheel-dir", target, cwd=target)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The interpreter of a new environment that holds a third-party `kernels` and can see this one's packages."""
    _run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env", cwd=tmp_path)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(tmp_path / "env")}))
    (site / "kernels").mkdir()
    (site / "kernels" / "__init__.py").write_text(THEIRS)
    # a path line shows the packages of this environment but not its own editable installs
    (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Path(sysconfig.get_path("scripts", "venv", {"base": str(tmp_path / "env")})) / "python"


def _probe(python: Path, cwd: Path) -> dict:
    # -I outside a checkout: neither the working directory nor user settings may help the import
    isolated = () if (cwd / "pps_fast").is_dir() else ("-I",)
    seen = json.loads(_run(python, *isolated, "-c", PROBE, cwd=cwd))
    assert seen["theirs"] in THEIRS and not seen["mixed"]
    assert seen["version"] == pps_fast.__version__
    assert seen["ours"] is not None, "pps_fast.kernels.gaussian_mask is not importable"
    return {name: Path(seen[name]).resolve() for name in ("ours", "package")}


def test_wheel_holds_the_package_its_kernels_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    information = f"pps_fast-{pps_fast.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"pps_fast", information}
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pps_fast").rglob("*.py")}
    expected |= {"pps_fast/py.typed", *(f"pps_fast/ground/page.{part}" for part in ("html", "css", "js"))}
    expected |= {f"pps_fast/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "kernels").glob("*.py")}
    assert {name for name in names if name.startswith("pps_fast/")} == expected
    assert "pps_fast/kernels/gaussian_mask.py" in expected
    assert f"{information}/licenses/LICENSE" in names


def test_installed_wheel_leaves_a_package_named_kernels_alone(wheel: Path, python: Path, tmp_path: Path) -> None:
    _pip(python, "install", wheel, "--ignore-installed", cwd=tmp_path)
    seen = _probe(python, tmp_path)
    assert seen["ours"] == seen["package"].parent / "kernels" / "gaussian_mask.py"
    assert tmp_path in seen["ours"].parents


def test_wheel_in_a_target_directory_beside_a_package_named_kernels(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    (target / "kernels").mkdir(parents=True)
    (target / "kernels" / "__init__.py").write_text(THEIRS)
    _pip(sys.executable, "install", wheel, "--target", target, cwd=tmp_path)
    assert [path.name for path in (target / "kernels").glob("*.py")] == ["__init__.py"]
    assert (target / "kernels" / "__init__.py").read_text() == THEIRS
    seen = json.loads(
        _run(sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(target)!r})" + PROBE, cwd=tmp_path)
    )
    assert seen["theirs"] in THEIRS and not seen["mixed"]
    assert Path(seen["ours"]) == target / "pps_fast" / "kernels" / "gaussian_mask.py"


@pytest.mark.parametrize("mode", ["lenient", "strict"])
def test_editable_install_runs_the_checkout(checkout: Path, python: Path, tmp_path: Path, mode: str) -> None:
    _require_build_tools()
    settings = ["--config-settings", f"editable_mode={mode}"]
    _pip(python, "install", "--ignore-installed", *settings, "--editable", checkout, cwd=tmp_path)
    seen = _probe(python, tmp_path)
    assert seen["ours"] == (checkout / "kernels" / "gaussian_mask.py").resolve()
    assert seen["package"] == (checkout / "pps_fast" / "__init__.py").resolve()


def test_checkout_works_without_being_installed(checkout: Path, python: Path) -> None:
    seen = _probe(python, checkout)
    assert seen["ours"] == (checkout / "kernels" / "gaussian_mask.py").resolve()


def test_a_stranger_named_kernels_beside_the_package_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "pps_fast").mkdir()
    shutil.copy(ROOT / "pps_fast" / "__init__.py", tmp_path / "pps_fast")
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text(THEIRS)
    code = "import importlib.util, pps_fast; print(importlib.util.find_spec('pps_fast.kernels'), pps_fast.__file__)"
    assert _run(sys.executable, "-c", code, cwd=tmp_path).split() == ["None", str(tmp_path / "pps_fast/__init__.py")]


def _constraints(name: str = "constraints.txt") -> list[Requirement]:
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line]


def test_pins_are_in_constraints_only_and_satisfy_the_lower_bounds(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    metadata = Parser().parsestr(archive.read(f"pps_fast-{pps_fast.__version__}.dist-info/METADATA").decode())
    needs = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    assert {need.name for need in needs if need.marker is None or "extra" not in str(need.marker)} == {
        "torch", "triton", "numpy", "h5py", "safetensors", "tyro", "tqdm"
    }  # fmt: skip
    (triton,) = [need for need in needs if need.name == "triton"]
    assert not triton.marker.evaluate({"platform_system": "Darwin"})
    pins = {pin.name: pin for pin in _constraints() if pin.marker is None or pin.marker.evaluate()}
    # gradio needs an older pillow: its pins stand in a file of their own, to be installed last
    demo = {pin.name: pin for pin in _constraints("constraints-demo.txt")}
    assert demo.keys() & pins.keys() == {"pillow"}
    assert all(need.specifier.contains(str(demo["pillow"].specifier)[2:]) for need in needs if need.name == "pillow")
    pins["gradio"] = demo["gradio"]
    for need in needs:
        assert [part.operator for part in need.specifier] == [">="], need
        (pin,) = pins[need.name].specifier
        assert need.specifier.contains(pin.version), f"{need} against {pin}"
    assert all([part.operator for part in pin.specifier] == ["=="] for pin in [*_constraints(), *demo.values()])


def test_torch_pin_admits_builds_for_the_cpu() -> None:
    (torch,) = [pin for pin in _constraints() if pin.name == "torch"]
    assert torch.specifier.contains("2.13.0") and torch.specifier.contains("2.13.0+cpu")


def test_make_names_a_python_that_is_missing() -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    command = ["make", "--no-print-directory", "check-python", "PYTHON=no-such-python"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "no-such-python was not found; name a Python >= 3.10: make PYTHON=/path/to/python3" in done.stdout
