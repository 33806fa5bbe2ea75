"""Vectors of sentences from an encoder of the field, by the library transformers (extra `encoder`).

An encoder is named by its folder, or as NAME or NAME@REVISION of the Hugging Face Hub, and is never part of what is
written here. A folder has to be whole before it is loaded; no code that it brings is run, and its weights are read from
safetensors alone. A sentence's vector is the mean over its tokens, or what the folder's own `modules.json` and
`1_Pooling` say; of CLIP it is the projected vector of the text.

Letters: n sentences, w width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pps_fast.prepare.readers.encoder_folder import Kind, locate_folder, name_of, read_json_file
from pps_fast.reading import brief, listed

_MISSING = "needs the library transformers; install it with `pip install 'pps-fast[encoder]'`"
_SENTENCES = Kind(
    what="sentence encoder",
    extra="encoder",
    files=("*.json", "*.txt", "*.model"),
    # any of these sets of files makes a tokenizer
    parts=(
        *(("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt")),
        *(("spiece.model",), ("sentencepiece.bpe.model",)),
    ),
    part="its tokenizer",
)
# a tokenizer that knows a smaller share of the model's words was not read whole
_LEAST_SHARE = 0.9
# parts of an encoder that sentence vectors do not come from
_UNUSED = ("pooler", "position_ids", "decoder", "lm_head", "cls.", "logit_scale")
_PROBE = "a person opens the door"
_BATCH, _MOST_TOKENS = 64, 512
_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_UNIT = ", unit"
# kinds of models that encode images, too -> class of their half for sentences, and what of its output is compared
_JOINT = {
    **dict.fromkeys(("clip", "clip_text_model"), ("CLIPTextModelWithProjection", "projection")),
    **dict.fromkeys(("siglip", "siglip_text_model"), ("SiglipTextModel", "pooler")),
}


@dataclass(frozen=True, kw_only=True)
class SentenceEncoder:
    """Encodes sentences; made by `open_encoder`.

    Attributes:
        name: NAME@REVISION, of a folder its name and the beginning of its weights' sha256.
        width: w.
        pooling: how the vector of a sentence follows from those of its tokens: "mean" or "cls", with ", unit" where it
            is scaled to length 1; of encoders of images, too, "projection" (CLIP) or "pooler" (SigLIP).
        run: takes sentences, returns their vectors [n, w].
    """

    name: str
    width: int
    pooling: str
    run: Callable[[list[str]], np.ndarray]

    def encode(self, sentences: Sequence[str], show_progress: bool = False) -> np.ndarray:
        """Returns a vector for each sentence, [n, w] float32."""
        starts = range(0, len(sentences), _BATCH)
        shown = tqdm(starts, desc="encode", unit="batch", disable=None if show_progress else True)
        blocks = [self.run(list(sentences[start : start + _BATCH])) for start in shown]
        return np.concatenate(blocks) if blocks else np.zeros((0, self.width), dtype=np.float32)


def open_encoder(named: str) -> SentenceEncoder:
    """Loads an encoder from its folder, from the cache of the hub, or else from the hub.

    Args:
        named: folder, NAME or NAME@REVISION.
    Raises:
        ValueError: in one sentence, for an encoder that is not there, not whole or of another kind, and where the
            library is not installed. Without a network this takes seconds, not minutes.
    """
    folder, name = locate_encoder(named)
    try:
        import transformers
    except ImportError as error:
        raise ValueError(f"sentence encoder {named}: {_MISSING}") from error
    pooling = _pooling(folder)
    try:
        with quiet(transformers.utils.logging):
            tokenizer, model, pooling = _load(folder, pooling, transformers)
    # the library and what it calls raise errors of many kinds
    except Exception as error:
        raise ValueError(f"sentence encoder {named}: cannot be loaded ({brief(error)}); name another one") from error
    _require_all_words(tokenizer, model, named)
    run = _runner(tokenizer, model, pooling)
    width = run([_PROBE]).shape[1]
    return SentenceEncoder(name=name or name_of(folder), width=width, pooling=pooling, run=run)


def locate_encoder(named: str) -> tuple[Path, str | None]:
    """Returns the whole folder of an encoder, and NAME@REVISION where it is from the hub; loads no torch.

    Raises:
        ValueError: as `open_encoder`, for an encoder that is not there or not whole.
    """
    return locate_folder(named, _SENTENCES)


@contextmanager
def quiet(logging: Any) -> Iterator[None]:
    """Hides the library's bars and reports; what they would say is checked and told in a sentence."""
    was_shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if was_shown:
            logging.enable_progress_bar()


def _pooling(folder: Path) -> str:
    """Returns how a folder of the library sentence-transformers pools tokens; of another folder "mean"."""
    modules = read_json_file(folder / "modules.json") if (folder / "modules.json").is_file() else []
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    other = sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"})
    if other:
        raise ValueError(f"{folder}: has a layer {listed(other)} after its tokens, which is not computed; take another")
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return "mean"
    values = read_json_file(path)
    modes = [name for name, is_set in values.items() if name.startswith("pooling_mode_") and is_set is True]
    mode = _POOLINGS.get(modes[0]) if len(modes) == 1 else None
    if mode is None:
        raise ValueError(f"{path}: pools by {listed(modes) or 'nothing'}, not by mean or cls; take another encoder")
    return mode + (_UNIT if "Normalize" in kinds else "")


def _load(folder: Path, pooling: str, transformers: Any) -> tuple[Any, Any, str]:
    """Returns tokenizer and model, whole, and how tokens are pooled."""
    import torch

    strict: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(folder, **strict)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **strict)
    kind, pooling = _JOINT.get(config.model_type, ("AutoModel", pooling))
    strict |= {"use_safetensors": True, "output_loading_info": True, "dtype": torch.float32}
    model, info = getattr(transformers, kind).from_pretrained(folder, **strict)
    missing = [name for name in sorted(info["missing_keys"]) if not any(part in name for part in _UNUSED)]
    if missing:
        raise ValueError(f"its weights lack {listed(missing)}")
    if config.is_encoder_decoder:
        model = model.get_encoder()
    return tokenizer, model.eval(), pooling


def _require_all_words(tokenizer: Any, model: Any, named: str) -> None:
    """Refuses a tokenizer that knows few of the model's words, or makes nothing of a plain sentence."""
    rows = model.get_input_embeddings().num_embeddings
    tokens = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    is_known = bool(tokens) and any(token != tokenizer.unk_token_id for token in tokens)
    if not is_known or max(tokens) >= rows or len(tokenizer) < _LEAST_SHARE * rows:
        what = f"its tokenizer knows {len(tokenizer):,} of {rows:,} words"
        raise ValueError(f"sentence encoder {named}: {what}, so that it is not whole; fetch it again")


def _runner(tokenizer: Any, model: Any, pooling: str) -> Callable[[list[str]], np.ndarray]:
    import torch

    limit = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", _MOST_TOKENS))

    def run(sentences: list[str]) -> np.ndarray:
        # SigLIP was trained on sentences of one length, and reads the last token
        padding = "max_length" if pooling == "pooler" else True
        tokens = tokenizer(
            sentences, padding=padding, truncation=True, max_length=min(limit, _MOST_TOKENS), return_tensors="pt"
        )
        with torch.inference_mode():
            output = model(**tokens)
            if pooling == "projection":
                vectors = output.text_embeds
            elif pooling == "pooler":
                vectors = output.pooler_output
            elif pooling.removesuffix(_UNIT) == "cls":
                vectors = output.last_hidden_state[:, 0]
            else:
                is_token = tokens["attention_mask"][:, :, None]
                vectors = (output.last_hidden_state * is_token).sum(dim=1) / is_token.sum(dim=1)
            if pooling.endswith(_UNIT):
                vectors = torch.nn.functional.normalize(vectors)
        array: np.ndarray = vectors.float().numpy()
        return array

    return run
