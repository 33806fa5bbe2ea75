"""Encoders of frames: of images (CLIP, SigLIP, DINO and others), of short clips (VideoMAE), and the toy `color`.

An encoder is named by its folder, or as NAME or NAME@REVISION of the Hugging Face Hub, and is loaded by the library
transformers (extra `video`) with its image processor of PIL. A folder has to be whole; no code that it brings is run,
and its weights are read from safetensors, or as plain tensors.

Letters: n rows, w width of a row, k frames of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pps_fast.prepare.readers.encoder_folder import Kind, locate_folder, name_of
from pps_fast.prepare.readers.encoders import quiet
from pps_fast.reading import brief, listed

COLOR = "color"
"""the encoder that needs no download: a toy"""
# short names -> whose they are
_OWNERS = (
    ("clip-vit-", "openai/"),
    ("siglip", "google/"),
    ("videomae-", "MCG-NJU/"),
    ("dinov2-", "facebook/"),
)
_IMAGES = Kind(
    what="encoder",
    extra="video",
    files=("*.json",),
    parts=(("preprocessor_config.json",), ("processor_config.json",)),
    part="its image processor (preprocessor_config.json)",
    takes_plain=True,
)
# of weights that features do not come from
_UNUSED = ("text", "position_ids", "logit_", "mask_token")
# VideoMAE was trained on every fourth frame of 30 a second
_CLIP_FRAMES_PER_SECOND = 7.5
_LEVELS, _CELLS = 4, 4


@dataclass(frozen=True, kw_only=True)
class FrameEncoder:
    """Encodes frames; made by `open_encoder`.

    Attributes:
        name: NAME@REVISION, of a folder its name and the beginning of its weights' sha256; "color".
        width: w.
        frames: k, 1 for an encoder of images.
        span_s: seconds over which the k frames of a row are spread.
        record: JSON-able, what else the features depend on: image size, normalization, pooling.
        prepare: takes a [height, width, 3] uint8 RGB frame, returns what `run` takes of it.
        run: takes n rows of k prepared frames, returns [n, w] float32.
    """

    name: str
    width: int
    frames: int = 1
    span_s: float = 0.0
    record: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[np.ndarray], np.ndarray]
    run: Callable[[Sequence[Sequence[np.ndarray]]], np.ndarray]


def full_name(named: str) -> str:
    """Returns the name in the hub of a short one: "openai/clip-vit-base-patch32" for "clip-vit-base-patch32"."""
    if "/" in named or Path(named).is_dir():
        return named
    return next((owner + named for start, owner in _OWNERS if named.startswith(start)), named)


def locate_frame_encoder(named: str) -> tuple[Path, str | None] | None:
    """Returns the whole folder of an encoder, and NAME@REVISION where it is from the hub; loads no torch.

    Returns:
        None for `color`, which has no folder.
    Raises:
        ValueError: as `open_encoder`, for an encoder that is not there or not whole.
    """
    return None if named == COLOR else locate_folder(full_name(named), _IMAGES)


def open_encoder(named: str, device: Any = "cpu") -> FrameEncoder:
    """Loads an encoder from its folder, from the cache of the hub, or else from the hub.

    Args:
        named: `color`, a folder, NAME or NAME@REVISION; NAME may be short, "clip-vit-base-patch32".
        device: torch device where it shall compute.
    Raises:
        ValueError: in one sentence, for an encoder that is not there, not whole or of another kind, and where the
            library is not installed. Without a network this takes seconds, not minutes.
    """
    located = locate_frame_encoder(named)
    if located is None:
        return _color()
    folder, name = located
    try:
        import PIL.Image
        import transformers
    except ImportError as error:
        what = "needs the libraries of the extra `video`; install them with `pip install 'pps-fast[video]'`"
        raise ValueError(f"encoder {named}: {what}") from error
    try:
        with quiet(transformers.utils.logging):
            processor, model = _load(folder, transformers, device)
        return _encoder(name or name_of(folder), processor, model, PIL.Image.fromarray)
    # the library and what it calls raise errors of many kinds
    except Exception as error:
        raise ValueError(f"encoder {named}: cannot be loaded ({brief(error)}); name another one") from error


def _load(folder: Path, transformers: Any, device: Any) -> tuple[Any, Any]:
    """Returns image processor and model, whole."""
    import torch

    strict: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil", **strict)
    strict |= {"output_loading_info": True, "dtype": torch.float32, "weights_only": True}
    model, info = transformers.AutoModel.from_pretrained(folder, **strict)
    missing = [name for name in sorted(info["missing_keys"]) if not any(part in name for part in _UNUSED)]
    if missing:
        raise ValueError(f"its weights lack {listed(missing)}")
    return processor, model.to(device).eval()


def _encoder(name: str, processor: Any, model: Any, as_image: Callable[[np.ndarray], Any]) -> FrameEncoder:
    """Returns the encoder, after it has encoded one gray row."""
    import torch

    is_clips = model.config.model_type == "videomae"
    frames = int(model.config.num_frames) if is_clips else 1
    pooling = _pooling(model, is_clips)

    def prepare(frame: np.ndarray) -> np.ndarray:
        image = as_image(frame)
        pixels = processor(images=[image], return_tensors="np")["pixel_values"]
        array: np.ndarray = np.asarray(pixels, dtype=np.float32).reshape(np.shape(pixels)[-3:])
        return array

    def run(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        stacked = np.stack([np.stack(row) for row in rows])
        pixels = torch.from_numpy(stacked if is_clips else stacked[:, 0]).to(model.device)
        with torch.inference_mode():
            vectors: np.ndarray = _vectors(model, pixels, pooling).float().cpu().numpy()
        return vectors

    gray = prepare(np.full((48, 64, 3), 128, dtype=np.uint8))
    width = run([[gray] * frames]).shape[1]
    size = [int(gray.shape[1]), int(gray.shape[2])]
    names = ("image_mean", "image_std", "rescale_factor", "do_center_crop", "do_resize", "resample")
    # what its processor says, as far as that is plain values
    values = {name: _plain(getattr(processor, name, None)) for name in names}
    processed = {name: value for name, value in values.items() if value is not None}
    record = {"image_size": size, "pooling": pooling, **processed}
    span_s = frames / _CLIP_FRAMES_PER_SECOND if is_clips else 0.0
    return FrameEncoder(name=name, width=width, frames=frames, span_s=span_s, record=record, prepare=prepare, run=run)


def _pooling(model: Any, is_clips: bool) -> str:
    """Returns how the vector of a row follows from the model's output."""
    if is_clips:
        return "mean"
    return "image features" if hasattr(model, "get_image_features") else "pooler, else first token"


def _vectors(model: Any, pixels: Any, pooling: str) -> Any:
    if pooling == "image features":
        output = model.get_image_features(pixel_values=pixels)
        # newer versions of the library return a record
        return getattr(output, "pooler_output", output)
    output = model(pixel_values=pixels)
    if pooling == "mean":
        return output.last_hidden_state.mean(dim=1)
    pooled = getattr(output, "pooler_output", None)
    return output.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)


def _plain(value: Any) -> Any:
    """Returns a value as JSON has it, None for one of another kind."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str) else None


def _color() -> FrameEncoder:
    """Returns the toy: how much of a frame has each of 64 colors (square roots), and mean colors of 16 cells."""
    width = _LEVELS**3 + 3 * _CELLS**2

    def prepare(frame: np.ndarray) -> np.ndarray:
        # few pixels are enough
        step = max(max(frame.shape[:2]) // 64, 1)
        small = frame[::step, ::step]
        level = small.astype(np.int64) * _LEVELS // 256
        color = (level[..., 0] * _LEVELS + level[..., 1]) * _LEVELS + level[..., 2]
        share = np.bincount(color.ravel(), minlength=_LEVELS**3) / color.size
        rows = np.array_split(small.astype(np.float64) / 255, _CELLS, axis=0)
        cells = [
            cell.mean(axis=(0, 1)) if cell.size else np.zeros(3)
            for row in rows
            for cell in np.array_split(row, _CELLS, axis=1)
        ]
        return np.concatenate([np.sqrt(share), *cells]).astype(np.float32)

    def run(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        return np.stack([row[0] for row in rows])

    record = {"pooling": f"shares of {_LEVELS**3} colors, mean colors of {_CELLS**2} cells: a toy, for demonstrations"}
    return FrameEncoder(name=COLOR, width=width, record=record, prepare=prepare, run=run)
