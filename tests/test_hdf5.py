"""HDF5 files of other people can neither reach outside themselves nor ask for more than they hold."""

from __future__ import annotations

import resource
import shutil

import h5py
import numpy as np
import pytest

from pps_fast.hdf5 import inside, new_hdf5, open_hdf5, plain_dataset, read_dataset, size_of

VALUES = np.arange(12.0).reshape(4, 3)


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 3), dtype="f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(4, 3))
    file.create_virtual_dataset("x", layout)


def _missing_filter(file: h5py.File) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((4, 3))
    plan.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (0,))
    space = h5py.h5s.create_simple((4, 3))
    h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_DOUBLE, space, plan)


def _circle(file: h5py.File) -> None:
    file["x"], file["y"] = h5py.SoftLink("/y"), h5py.SoftLink("x")


def _soft_to_external(file: h5py.File) -> None:
    file["door"] = h5py.ExternalLink("other.h5", "/")
    file["x"] = h5py.SoftLink("/door/x")


SPOILED = {
    "virtual": (_virtual, "'x' is virtual"),
    "external storage": (
        lambda file: file.create_dataset("x", (4, 3), "f8", external=[("secret.bin", 0, 96)]),
        "'x' is stored in another file",
    ),
    "external link": (lambda file: file.__setitem__("x", h5py.ExternalLink("other.h5", "/x")), "link to another file"),
    "soft link to an external one": (_soft_to_external, "link to another file"),
    "circle": (_circle, "leads in a circle"),
    "filter": (_missing_filter, "the HDF5 filter 32015 .zstd., which is not installed"),
    "group": (lambda file: file.create_group("x/y"), "'x' is a group; it holds y"),
    "bomb": (
        lambda file: file.create_dataset("x", (10**7, 10**7), "f4", chunks=(100, 100)),
        "declares 363.8 TiB but stores 0 bytes",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_reaches_outside_or_asks_too_much_is_refused_by_name(name, tmp_path):
    spoil, words = SPOILED[name]
    (tmp_path / "secret.bin").write_bytes(b"secret" * 16)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = VALUES
    with h5py.File(tmp_path / "x.h5", "w") as file:
        spoil(file)
    with open_hdf5(tmp_path / "x.h5") as file, pytest.raises(ValueError, match=words):
        read_dataset(file, "x")


def test_plain_data_and_links_within_the_file_are_read(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a/x", data=VALUES, compression="gzip", chunks=True)
        file["soft"], file["a/near"] = h5py.SoftLink("/a/x"), h5py.SoftLink("x")
        file["group"] = h5py.SoftLink("a")
    with open_hdf5(tmp_path / "x.h5") as file:
        for name in ("a/x", "soft", "a/near", "group/x", "/group/near"):
            np.testing.assert_array_equal(read_dataset(file, name), VALUES)
        assert plain_dataset(file["a"], "x").shape == (4, 3) and isinstance(inside(file, "group"), h5py.Group)
        for name in ("no", "a/x/y"):
            with pytest.raises(KeyError):
                read_dataset(file, name)


def test_a_size_beyond_the_free_memory_is_refused_before_it_is_allocated(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = VALUES
    monkeypatch.setattr("pps_fast.machine.free_memory", lambda: 95)
    with open_hdf5(tmp_path / "x.h5") as file, pytest.raises(ValueError, match="needs 96 bytes of memory, 95 bytes"):
        read_dataset(file, "x")


@pytest.mark.parametrize(
    "content, words", [(b"hello", "not an HDF5 file"), (None, "no such file"), (b"", "not an HDF5 file")]
)
def test_what_is_no_hdf5_file_is_told_so(content, words, tmp_path):
    if content is not None:
        (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(ValueError, match=f"x.h5: {words}"):
        open_hdf5(tmp_path / "x.h5")


@pytest.mark.parametrize("num_texts", [0, 3, 5000])
@pytest.mark.parametrize("num_values", [0, 7, 100_000])
def test_a_file_is_at_most_as_large_as_reserved_and_gives_the_rest_back(num_values, num_texts, tmp_path):
    values, texts = np.ones(num_values), [f"wörter {number}" * 5 for number in range(num_texts)]
    reserved = size_of([values], [texts])
    for name in ("a.h5", "b.h5"):
        with new_hdf5(tmp_path / name, reserved) as file:
            assert (tmp_path / name).stat().st_size >= reserved
            file["values"] = values
            file.create_dataset("texts", data=texts, dtype=h5py.string_dtype())
    size = (tmp_path / "a.h5").stat().st_size
    assert reserved / 5 - 60_000 < size <= reserved
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    with open_hdf5(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(read_dataset(file, "values"), values)
        assert file["texts"].asstr()[()].tolist() == texts


def test_space_that_is_not_there_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    with (
        pytest.raises(ValueError, match="x.h5: needs .* on the disk, .* are free; make room"),
        new_hdf5(tmp_path / "x.h5", shutil.disk_usage(tmp_path).total * 2),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_limit_of_the_system_is_an_error_and_no_crash(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"), new_hdf5(tmp_path / "x.h5", 200_000):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
