"""Answers of a joint encoder alone, and what is refused; of features and of video files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pps_fast.features.encoders import open_encoder
from pps_fast.ground.__main__ import main
from pps_fast.ground.zero_shot import NUM_SEGMENTS, zero_shot
from tests.support.joint_encoders import WIDTH, joint_folder
from tests.support.videos import gray_frames, write_video


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_frames_and_sentences_are_those_of_the_encoders_own_similarity(kind: str, tmp_path: Path) -> None:
    folder = joint_folder(tmp_path / kind, kind)
    import transformers

    grounder = zero_shot(str(folder))
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokens = torch.tensor([[2, 6, 7, 8, 9, 3, *([0] * 10)]])
    mask = (tokens > 0).long() if kind == "clip" else torch.ones_like(tokens)
    with torch.inference_mode():
        features = model.get_text_features(input_ids=tokens, attention_mask=mask)
    expected = getattr(features, "pooler_output", features)[0].numpy()
    frames = np.random.default_rng(0).standard_normal((NUM_SEGMENTS, WIDTH)).astype(np.float32)
    # where the sentence's own vector stands in the video
    frames[20:26] = 3 * expected
    (moment, *_) = grounder.ground(frames, "person opens the door", duration_s=32.0)
    # smoothing spreads it over two more segments on either side
    assert 17 < moment.start_s < 20.5 and 25.5 < moment.end_s < 29
    assert moment.match is None and "nothing was trained" in str(grounder.no_match)


def test_the_program_asks_a_video_file_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = joint_folder(tmp_path / "clip")
    write_video(tmp_path / "a.mp4", gray_frames(40), fps=4)
    assert main(["--zero-shot", str(folder), str(tmp_path / "a.mp4"), "a dog", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["num_videos"] == 1 and record["no_match"].startswith("zero-shot: nothing was trained")


def test_features_of_another_encoder_are_refused(tmp_path: Path) -> None:
    folder = joint_folder(tmp_path / "clip")
    name = open_encoder(str(folder)).name
    videos = zero_shot(str(folder)).videos
    videos.require_same([{"encoder": name, "fps": 2.0, "width": WIDTH}], "f.h5")
    videos.require_same([None], "f.h5")
    for other in (f"clip@{'0' * 12}", f"moved@{'0' * 12}"):
        with pytest.raises(ValueError, match=f"f.h5: its features were made by the encoder {other}, and .* by {name};"):
            videos.require_same([{"encoder": other}], "f.h5")


def test_an_encoder_of_sentences_alone_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the video extra")
    folder = joint_folder(tmp_path / "clip")
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    transformers.BertModel(transformers.BertConfig(vocab_size=11, **small)).save_pretrained(folder)
    np.save(tmp_path / "x.npy", np.ones((4, 8), dtype=np.float32))
    assert main(["--zero-shot", str(folder), "--features", str(tmp_path / "x.npy"), "--", "a dog"]) == 2
    assert "an encoder of sentences alone; name a joint one" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--model", "runs/x", "--zero-shot", "clip"]])
def test_a_model_or_an_encoder_is_needed_and_not_both(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--features", "x.npy", "a dog"]) == 2
    assert "--model and --zero-shot: give one of them" in capsys.readouterr().err
