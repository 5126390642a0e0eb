"""Models of Hugging Face, built from a configuration: texts, images and sounds by their own preprocessing."""

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers")

from neurokern.extractors import AudioClip, StimulusFeatures  # noqa: E402

WORDS = ["the", "a", "dog", "cat", "sat", "ran", "on", "mat"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """A language model and its tokenizer, as a folder."""
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert/vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
    )
    tokenizer = transformers.BertTokenizerFast.from_pretrained(tmp_path / "bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=12, **SMALL)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


TEXTS = ["the dog sat", "the cat ran on the mat", "the dog sat", "a cat"]


@pytest.mark.parametrize(
    ("pool", "of"), [("cls", lambda h: h[0]), ("last", lambda h: h[-1]), ("mean", lambda h: h.mean(0))]
)
def test_texts_of_any_length_are_never_padded(folder, pool, of):
    features = StimulusFeatures.from_pretrained(
        str(folder), ["encoder.layer.0", "encoder.layer.1"], pool=pool
    )
    texts = TEXTS
    found = features(texts)
    model = transformers.BertModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for number, text in enumerate(texts):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        for layer in (0, 1):
            wanted = of(states[layer + 1][0])
            torch.testing.assert_close(found[f"encoder.layer.{layer}"][number], wanted, rtol=1e-5, atol=1e-6)


def test_a_text_that_is_too_long_is_an_error_and_another_tokenizer_takes_no_features(folder):
    features = StimulusFeatures.from_pretrained(folder, "encoder.layer.1")
    with pytest.raises(ValueError, match=r"1 to 12 tokens for this model, got 22"):
        features(["dog " * 20])
    with pytest.raises(TypeError, match="image processor"):
        features([np.zeros((4, 4, 3), np.uint8)])
    first = features(["the dog"])["encoder.layer.1"]
    upper = transformers.BertTokenizerFast.from_pretrained(folder, do_lower_case=False)
    other = StimulusFeatures.from_pretrained((features.module, upper), "encoder.layer.1")
    assert other.preprocess.cache_key != features.preprocess.cache_key
    torch.testing.assert_close(other(["the dog"])["encoder.layer.1"], first)


def test_images_of_any_size_go_through_the_models_own_processor():
    torch.manual_seed(0)
    model = transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=8, **SMALL))
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    features = StimulusFeatures.from_pretrained((model, processor), "layernorm", pool="cls", batch_size=2)
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 256, (20, 30, 3), dtype=np.uint8),
        rng.integers(0, 256, (16, 16), dtype=np.uint8),
    ]
    found = features([*images, images[0]])["layernorm"]
    model.eval()
    for number, image in enumerate((images[0], np.repeat(images[1][..., None], 3, -1))):
        with torch.no_grad():
            wanted = model(**processor(images=image, return_tensors="pt")).last_hidden_state[0, 0]
        torch.testing.assert_close(found[number], wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(found[0], found[2])


def test_sounds_become_one_channel_at_the_models_rate():
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        conv_dim=(8, 8), conv_stride=(5, 4), conv_kernel=(10, 8), num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, **SMALL,
    )  # fmt: skip
    model = transformers.Wav2Vec2Model(config)
    extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=16000)
    stereo = AudioClip(np.random.default_rng(0).normal(size=(900, 2)) * 0.1, 16000.0)
    found = StimulusFeatures.from_pretrained((model, extractor), "encoder.layers.1")([stereo])
    model.eval()
    with torch.no_grad():
        inputs = extractor(stereo.mono(), sampling_rate=16000, return_tensors="pt")
        wanted = model(**inputs, output_hidden_states=True).hidden_states[-1][0].mean(0)
    assert found["encoder.layers.1"].shape == (1, 16)
    torch.testing.assert_close(found["encoder.layers.1"][0], wanted, rtol=1e-4, atol=1e-5)
