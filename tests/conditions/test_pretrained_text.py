"""Tests of texts encoded by a frozen encoder, with a tiny one made here."""

import copy
import json
import os

import pytest
import torch
from toys import tiny_unet

from diffusion_framework import GaussianDiffusion
from diffusion_framework.conditions import PretrainedText

WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "blue", "heart"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Writes a T5 encoder of random weights, with a tokenizer of a few words."""
    pytest.importorskip("transformers", reason="the extra `text` is not installed")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("encoder")
    words = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"vocab_size": len(WORDS), "d_model": 8, "d_kv": 4, "d_ff": 16, "num_heads": 2}
    T5EncoderModel(T5Config(**sizes, num_layers=1)).save_pretrained(folder)
    return folder


def text(encoder, folder, **options):
    return PretrainedText(8, str(encoder), length=5, cache_folder=str(folder), **options)


def test_tokens_are_those_of_the_encoder_and_are_computed_once(encoder, tmp_path, monkeypatch):
    from transformers import AutoTokenizer, T5EncoderModel

    texts = ["a red heart", "heart", "a red heart"]
    encoded = text(encoder, tmp_path)(texts)
    model = T5EncoderModel.from_pretrained(encoder).eval()
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    for i, each in enumerate(texts):
        with torch.no_grad():
            expected = model(**tokenizer(each, return_tensors="pt")).last_hidden_state[0]
        assert encoded["token_mask"][i].sum() == len(expected)
        torch.testing.assert_close(encoded["tokens"][i, : len(expected)], expected)
        assert (encoded["tokens"][i, len(expected) :] == 0).all()
    assert len([*tmp_path.rglob("*.safetensors")]) == 2
    for path in encoder.iterdir():  # reading a file changes nothing
        os.utime(path, ns=(path.stat().st_atime_ns + 10**10, path.stat().st_mtime_ns))
    again = text(encoder, tmp_path)
    monkeypatch.setattr(type(again.encoder), "_load", lambda self: pytest.fail("loaded again"))
    assert torch.equal(again(texts)["tokens"], encoded["tokens"])


def test_other_files_of_the_encoder_and_damaged_tokens_are_encoded_anew(encoder, tmp_path):
    conditioner = text(encoder, tmp_path)
    before = conditioner(["heart"])["tokens"]
    (kept,) = tmp_path.rglob("*.safetensors")
    kept.write_bytes(kept.read_bytes()[:-3])
    assert torch.equal(conditioner(["heart"])["tokens"], before)
    config = encoder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"note": "changed"}))
    assert text(encoder, tmp_path).encoder.identity != conditioner.encoder.identity


def test_the_encoder_is_neither_trained_nor_saved_nor_copied(encoder, tmp_path):
    conditions = {"text": text(encoder, tmp_path, dropout=0.5)}
    diffusion = GaussianDiffusion(tiny_unet(token_dim=8), conditions=conditions)
    diffusion(torch.rand(2, 1, 8, 8), text=["a red heart", "heart"]).backward()
    names = [name for name in diffusion.state_dict() if name.startswith("conditions")]
    assert names == ["conditions.text.nothing"]
    assert all(p.grad is not None for p in diffusion.parameters())
    twin = copy.deepcopy(diffusion)
    assert twin.conditions["text"].encoder is diffusion.conditions["text"].encoder
    drawn = diffusion.sample(2, text="a blue heart", guidance=2.0, steps=2, show_progress=False)
    assert torch.isfinite(drawn).all()


@pytest.mark.parametrize(
    ("options", "value", "message"),
    [
        ({}, ["a a a a a a"], "at most 5 tokens, got 6 in 'a a a a a a'. Fix: shorten it"),
        ({}, "heart", "Expected a list of texts, got 'heart'"),
        ({"dim": 9}, ["heart"], "Expected tokens of width 9 from .*, got 8. Fix: set dim=8"),
        ({"encoder": "/nowhere"}, ["heart"], "Expected a text encoder in safetensors files under"),
    ],
)
def test_bad_input_is_refused_in_one_line(encoder, tmp_path, options, value, message):
    options = {"dim": 8, "encoder": str(encoder), "length": 5} | options
    with pytest.raises(ValueError, match=message) as error:
        PretrainedText(cache_folder=str(tmp_path), **options)(value)
    assert "\n" not in str(error.value)


def test_longer_texts_are_cut_if_asked(encoder, tmp_path):
    encoded = text(encoder, tmp_path, truncate=True)(["a a a a a a"])
    assert encoded["token_mask"].all()
