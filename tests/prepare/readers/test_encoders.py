"""Encoders of sentences: whole or refused, quickly where there is no network, and never with code of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pps_fast.prepare.readers import encoders
from pps_fast.prepare.readers.encoders import SentenceEncoder, open_encoder
from tests.support.documents import ROOT

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "person", "opens", "the", "door", "dog"]


def _files(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}", encoding="utf-8")
    return folder


def test_sentences_are_encoded_in_batches_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_BATCH", 2)
    sizes = []

    def run(sentences: list[str]) -> np.ndarray:
        sizes.append(len(sentences))
        return np.array([[len(sentence), 1.0] for sentence in sentences], dtype=np.float32)

    encoder = SentenceEncoder(name="E@1", width=2, pooling="mean", run=run)
    np.testing.assert_array_equal(encoder.encode(["a", "bb", "ccc"])[:, 0], [1, 2, 3])
    assert sizes == [2, 1] and encoder.encode([]).shape == (0, 2)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"sentence encoder some/name: needs .* .pip install 'pps-fast\[encoder\]'"):
        open_encoder("some/name")


def test_an_encoder_is_looked_for_without_loading_torch() -> None:
    code = "import sys, pps_fast.prepare.readers.encoders; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("modules", "pooling", "expected"),
    [
        (None, None, "mean"),
        (["Transformer", "Pooling"], {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        (["Transformer", "Pooling", "Normalize"], {"pooling_mode_mean_tokens": True}, "mean, unit"),
    ],
)
def test_tokens_are_pooled_as_the_folder_says(modules, pooling, expected: str, tmp_path: Path) -> None:
    if modules is not None:
        types = [{"type": f"sentence_transformers.models.{name}"} for name in modules]
        (tmp_path / "modules.json").write_text(json.dumps(types), encoding="utf-8")
        _files(tmp_path, "1_Pooling/config.json")
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    assert encoders._pooling(tmp_path) == expected


def test_layers_and_poolings_that_are_not_computed_are_refused(tmp_path: Path) -> None:
    _files(tmp_path, "1_Pooling/config.json")
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}', encoding="utf-8")
    with pytest.raises(ValueError, match="pools by pooling_mode_max_tokens, not by mean or cls"):
        encoders._pooling(tmp_path)
    (tmp_path / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]', encoding="utf-8")
    with pytest.raises(ValueError, match="has a layer Dense after its tokens"):
        encoders._pooling(tmp_path)
    (tmp_path / "modules.json").write_text("[", encoding="utf-8")
    with pytest.raises(ValueError, match="modules.json: damaged"):
        encoders._pooling(tmp_path)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A BERT of two layers with random weights and eleven words."""
    transformers = pytest.importorskip("transformers", reason="needs the encoder extra")
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **sizes)
    transformers.BertModel(config).save_pretrained(folder)
    transformers.BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


def test_a_vector_is_the_mean_over_the_tokens_whatever_stands_beside_it(tiny: Path) -> None:
    import transformers

    encoder = open_encoder(str(tiny))
    model = transformers.BertModel.from_pretrained(tiny).eval()
    with torch.inference_mode():
        tokens = torch.tensor([[2, 6, 7, 8, 9, 3]])
        expected = model(tokens).last_hidden_state.mean(dim=1).numpy()
    alone, beside = encoder.encode(["person opens the door"]), encoder.encode(["a dog", "person opens the door"])
    np.testing.assert_allclose(alone, expected, atol=1e-6)
    np.testing.assert_allclose(beside[1:], expected, atol=1e-6)
    assert encoder.width == 8 and encoder.name.startswith("tiny@") and encoder.pooling == "mean"
    assert open_encoder(str(tiny)).name == encoder.name
    # more words than the model has positions
    assert np.isfinite(encoder.encode(["door " * 40])).all()


def test_an_encoder_that_is_not_whole_is_refused_and_never_half_loaded(tiny: Path) -> None:
    from safetensors.torch import load_file, save_file

    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=message) as error:
            open_encoder(str(tiny))
        assert "\n" not in str(error.value)

    weights = tiny / "model.safetensors"
    whole = weights.read_bytes()
    tensors = load_file(weights)
    save_file({name: value for name, value in tensors.items() if "layer.1.output" not in name}, weights)
    refused("cannot be loaded .ValueError: its weights lack encoder.layer.1")
    weights.write_bytes(whole[: len(whole) // 2])
    refused("sentence encoder .*tiny: cannot be loaded")
    weights.write_bytes(whole)
    content = json.loads((tiny / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"] = {word: index for index, word in enumerate(WORDS[:6])}
    (tiny / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    refused("its tokenizer knows . of 11 words, so that it is not whole")
    (tiny / "tokenizer.json").write_text(json.dumps(content)[:100], encoding="utf-8")
    refused("cannot be loaded")


def test_code_that_a_folder_brings_is_never_run(tiny: Path) -> None:
    config = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine", "AutoModel": "code.Mine"}}
    (tiny / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tiny / "code.py").write_text(f"open({str(tiny / 'ran')!r}, 'w')", encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be loaded"):
        open_encoder(str(tiny))
    assert not (tiny / "ran").exists()
