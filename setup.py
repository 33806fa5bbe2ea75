"""Packaging: `kernels/` lies at the top of the checkout and is imported, and installed, as `pps_fast.kernels`.

It must never be installed as top-level `kernels`, which is the import name of a Hugging Face package.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """Returns `__version__` of pps_fast/__init__.py without importing it (torch may not be there yet)."""
    source = (ROOT / "pps_fast" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if match is None:
        raise RuntimeError('pps_fast/__init__.py has no line __version__ = "..."')
    return match.group(1)


def read_description() -> str:
    """Returns the README, or nothing in a tree that has none."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


TEST = ["pytest>=8", "pytest-benchmark>=4", "pytest-xdist>=3.5", "hypothesis>=6", "setuptools>=77"]

setup(
    name="pps-fast",
    version=read_version(),
    description="Weakly supervised temporal video grounding with Gaussian mixture proposals (PPS, AAAI 2024)",
    long_description=read_description(),
    long_description_content_type="text/markdown",
    author="pps_fast contributors",
    # the project has no site of its own yet: what it implements
    project_urls={
        "Paper": "https://arxiv.org/abs/2312.16388",
        "Published code of the paper": "https://github.com/sunoh-kim/pps",
    },
    keywords=[
        "temporal video grounding",
        "video moment retrieval",
        "weakly supervised learning",
        "Charades-STA",
        "ActivityNet Captions",
        "PyTorch",
        "Triton",
    ],
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    package_dir={"pps_fast": "pps_fast", "pps_fast.kernels": "kernels"},
    packages=[*find_packages(include=["pps_fast", "pps_fast.*"]), "pps_fast.kernels"],
    package_data={"pps_fast": ["py.typed"], "pps_fast.ground": ["page.html", "page.css", "page.js"]},
    include_package_data=False,
    entry_points={"console_scripts": ["pps-fast = pps_fast.__main__:main"]},
    zip_safe=False,
    install_requires=[
        "torch>=2.11",
        'triton>=3.6; platform_system == "Linux"',
        "numpy>=1.26",
        "h5py>=3.10",
        "safetensors>=0.4.3",
        "tyro>=0.9",
        "tqdm>=4.66",
    ],
    extras_require={
        "test": TEST,
        "plot": ["matplotlib>=3.8"],
        "track": ["tensorboard>=2.16"],
        "cluster": ["submitit>=1.5"],
        "encoder": ["transformers>=4.56"],
        "video": [
            "av>=15",
            'transformers>=5; python_version >= "3.11"',
            'transformers>=4.57; python_version < "3.11"',
            "pillow>=10",
        ],
        "hub": ["huggingface_hub>=0.30"],
        "demo": ["gradio>=6"],
        "dev": [*TEST, "ruff>=0.6", "mypy>=1.18"],
    },
    # Linux alone: nothing has been tried on macOS or Windows
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Operating System :: POSIX :: Linux",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
)
