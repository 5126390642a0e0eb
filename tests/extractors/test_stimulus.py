"""Features of stimuli: those of the network, once for each content, kept between runs."""

import contextlib
import os
import subprocess
import sys
import wave

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neurokern.cli import main
from neurokern.extractors import AudioClip, StimulusFeatures, read_audio, read_image
from neurokern.extractors import _stimulus_batches as batches
from neurokern.ops._cache_files import cached_files

GENERATOR = np.random.default_rng(0)


class Counted(nn.Module):
    """A small network of images of any size that counts what it sees."""

    def __init__(self, power=1):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 2)
        self.power = power

    def forward(self, x):
        type(self).n_seen += len(x)
        return self.head(self.drop(self.body(x) ** self.power).mean((2, 3)))

    n_seen = 0


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def net():
    torch.manual_seed(0)
    Counted.n_seen = 0
    return Counted()


def images(n, size=(6, 5)):
    return [GENERATOR.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(n)]


def expected(net, image):
    net.eval()
    x = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / 255)[None]
    return net.body(x).mean((2, 3))[0], net(x)[0]


def test_features_are_those_of_the_network_for_images_of_any_size(net):
    stimuli = [*images(5), *images(2, (3, 9)), GENERATOR.integers(0, 256, (4, 4, 3), dtype=np.uint8)]
    found = StimulusFeatures(net, ["body", "head"], batch_size=2)(stimuli)
    assert list(found) == ["body", "head"]
    assert net.training
    for number, image in enumerate(stimuli):
        body, head = expected(net, image)
        torch.testing.assert_close(found["body"][number], body)
        torch.testing.assert_close(found["head"][number], head)


def test_a_stimulus_is_looked_at_once_whatever_its_name_and_place(net, tmp_path):
    from PIL import Image

    one, other = images(2)
    for name in ("a.png", "b.png", os.fsdecode(b"caf\xe9.png")):
        Image.fromarray(one).save(tmp_path / name)
    files = [tmp_path / name for name in ("a.png", "b.png", os.fsdecode(b"caf\xe9.png"))]
    found = StimulusFeatures(net, "head")([*files, other, files[0], other.copy()])["head"]
    assert Counted.n_seen == 2
    assert found.shape == (6, 2)
    assert (found[[0, 1, 2, 4]] == found[0]).all()
    torch.testing.assert_close(found[0], expected(net, one)[1])


def test_features_are_kept_between_runs_and_only_what_is_new_is_looked_at(net, cache):
    stimuli = images(4)
    first = StimulusFeatures(net, "head")(stimuli)["head"]
    again = StimulusFeatures(net, "head")([stimuli[2], *images(1), stimuli[0]])["head"]
    assert Counted.n_seen == 5
    assert torch.equal(again[[0, 2]], first[[2, 0]])
    assert {file.kind for file in cached_files()} == {"stimulus_features"}
    StimulusFeatures(net, ["body", "head"])(stimuli)  # a further layer
    assert Counted.n_seen == 9


@pytest.mark.parametrize(
    "what", ["weights", "buffer", "setting", "tensor", "function", "table", "pool", "dtype", "layer"]
)
def test_another_network_or_setting_takes_no_features_of_this_one(net, what):
    net.register_buffer("shift", torch.zeros(1))
    net._mean, net.rule, net.options = torch.zeros(2), lambda x: x + 1, {"stride": [1, {2: np.zeros(2)}]}
    stimuli = images(3)
    features = StimulusFeatures(net, "body")
    features(stimuli)
    options = {}
    with torch.no_grad():
        if what == "weights":
            net.body[0].weight.mul_(1.5)
        elif what == "buffer":
            net.shift.add_(1)
        elif what == "setting":
            net.power = 2
        elif what == "tensor":
            net._mean = torch.ones(2)  # no buffer
        elif what == "function":
            net.rule = lambda x: x + 2
        elif what == "table":
            net.options = {"stride": [1, {2: np.ones(2)}]}
        elif what == "pool":
            options = {"pool": "max"}
        elif what == "dtype":
            options = {"dtype": torch.bfloat16}
    (features if not options else StimulusFeatures(net, "body", **options))(stimuli)
    if what == "layer":
        StimulusFeatures(net, "head")(stimuli)
    assert Counted.n_seen == 6


def test_the_code_of_a_network_and_of_what_it_inherits_is_part_of_its_key(net, tmp_path, monkeypatch):
    from neurokern.extractors._stimulus_keys import ModuleKey

    keys = []
    for number, factor in enumerate((1, 2, 1)):
        source = f"""
import torch
class Base(torch.nn.Module):
    def forward(self, x):
        return self.layer(x) * {factor}
class Net(Base):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Identity()
"""
        (tmp_path / f"nets{number}.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        module = __import__(f"nets{number}")
        for kind in (module.Base, module.Net):
            monkeypatch.setattr(kind, "__module__", "nets")
        monkeypatch.setitem(sys.modules, "nets", module)
        keys.append(ModuleKey(module.Net())())
    assert keys[0] == keys[2] != keys[1]


def test_images_are_told_by_their_colors_whatever_their_palette(net):
    from PIL import Image

    one = Image.new("P", (4, 4))
    one.putpalette([255, 0, 0])
    other = Image.new("P", (4, 4))
    other.putpalette([0, 0, 255])
    found = StimulusFeatures(net, "body")([one, other])["body"]
    assert not torch.equal(found[0], found[1])


def test_functions_of_ones_own_are_kept_by_the_version_that_names_them(net):
    stimuli = [GENERATOR.normal(size=(3, 4, 4)).astype(np.float32)]

    def double(x):
        return torch.from_numpy(2 * x)

    for version, seen in ((None, 1), (None, 2), ("double", 3), ("double", 3), ("other", 4)):
        StimulusFeatures(net, "head", preprocess=double, version=version)(stimuli)
        assert Counted.n_seen == seen
    with pytest.raises(ValueError, match=r"as pool needs version="):
        StimulusFeatures(net, "head", pool=lambda x: x, cache=True)


def test_damaged_files_are_found_and_made_again(net, capsys):
    stimuli = images(3)
    first = StimulusFeatures(net, "head")(stimuli)["head"]
    (file,) = cached_files()
    content = bytearray(file.path.read_bytes())
    content[-9] ^= 1  # in the last row
    file.path.write_bytes(content)
    assert torch.equal(StimulusFeatures(net, "head")(stimuli)["head"], first)
    assert Counted.n_seen == 6
    (file,) = cached_files()
    for n in (0, 5, 40, len(content) - 1):
        file.path.write_bytes(content[:n])
        assert torch.equal(StimulusFeatures(net, "head")(stimuli)["head"], first)
    assert main(["cache", "verify"]) in (0, None)
    assert "1 files" in capsys.readouterr().out


def test_networks_that_draw_draw_the_same_and_leave_the_generator_alone():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(x + torch.randn(x.shape))

    features = StimulusFeatures(Noisy(), "layer", cache=False)
    stimuli = [torch.ones(3)]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert torch.equal(features(stimuli)["layer"], features(stimuli)["layer"])
    assert torch.equal(torch.get_rng_state(), before)


def test_nan_is_no_feature(net):
    stimuli = [np.zeros((3, 4, 4), np.float32), np.full((3, 4, 4), np.inf, np.float32)]
    with pytest.raises(ValueError, match=r"layer 'head' gave NaN or infinite values for ndarray of shape"):
        StimulusFeatures(net, "head")(stimuli)
    assert not cached_files()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "bdoy"}, r"layers must match names of the module, got 'bdoy'; it has body"),
        ({"pool": "middle"}, r"pool must be one of 'flatten', 'mean'"),
        ({"device": "cuda:7"}, r"device must be one that is here, got 'cuda:7'"),
        ({"batch_size": 0}, r"batch_size must be at least 1"),
        ({"dtype": torch.int8}, r"dtype must be bfloat16"),
        ({"cache": "yes"}, r"cache must be one of 'auto'"),
    ],
)
def test_wrong_settings_are_named(net, options, message):
    if options.get("device") and torch.cuda.device_count() > 7:
        pytest.skip("there is such a device")
    with pytest.raises(ValueError, match=message):
        StimulusFeatures(net, **{"layers": "head", **options})


def test_wrong_stimuli_are_named(net, tmp_path):
    features = StimulusFeatures(net, "head", pool="none")
    (tmp_path / "no.png").write_bytes(b"\x89PNG nothing")
    for stimuli, error, message in (
        ([], ValueError, "at least one"),
        ("cat.png", TypeError, "must be several"),
        (["cat.png"], TypeError, "files are Path"),
        ([{"cat"}], TypeError, "got set"),
        ([tmp_path / "gone.png"], FileNotFoundError, "gone.png"),
        ([tmp_path / "no.png"], ValueError, "no.png cannot be read"),
    ):
        with pytest.raises(error, match=message):
            features(stimuli)
    with pytest.raises(ValueError, match=r"features of layer 'body' must have one size"):
        StimulusFeatures(net, "body", pool="flatten")([*images(1), *images(1, (3, 3))])


def test_sizes_that_do_not_fit_name_a_stimulus(tmp_path):
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 5, 2))
    with pytest.raises(ValueError, match=r"the network fails on inputs of .* ndarray of shape \(4, 4, 3\)"):
        StimulusFeatures(fixed, "1")([*images(2), *images(1, (4, 4))])
    assert StimulusFeatures(fixed, "1")(images(2))["1"].shape == (2, 2)


def test_a_cache_that_cannot_be_written_is_no_error_unless_it_is_asked_for(net, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "file"))
    stimuli = images(2)
    with pytest.warns(UserWarning, match="are not kept between runs"):
        assert StimulusFeatures(net, "head")(stimuli)["head"].shape == (2, 2)
    with pytest.raises(OSError, match="Not a directory"):
        StimulusFeatures(net, "head", cache=True)(stimuli)


ON_ITS_OWN = """
import numpy as np, torch
from neurokern.extractors import StimulusFeatures
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(8, 4))
net.names, net.other = {"one", "two", "three", "four"}, {"key": [torch.ones(2), torch.nn.ReLU()]}
stimuli = list(np.arange(400, dtype=np.float32).reshape(50, 8))
print(StimulusFeatures(net, "0", cache=True)(stimuli)["0"].sum().item())
"""


def test_two_processes_may_look_at_the_same_stimuli_and_share_what_they_find(capsys):
    command = [sys.executable, "-c", ON_ITS_OWN]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # another order of sets
    for _ in range(20):
        exec(ON_ITS_OWN, {})
    said, _ = other.communicate(timeout=120)
    assert other.returncode == 0
    assert set(capsys.readouterr().out.split()) == {said.strip()}
    assert len(cached_files()) == 1


def test_what_was_found_before_a_stop_is_kept(net, monkeypatch):
    monkeypatch.setattr(batches, "AT_ONCE", 4)
    stimuli = images(11)

    def stopped():
        yield from stimuli[:10]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        StimulusFeatures(net, "head")(stopped())
    assert Counted.n_seen == 8
    found = StimulusFeatures(net, "head")(stimuli)["head"]
    assert Counted.n_seen == 11
    torch.testing.assert_close(found[10], expected(net, stimuli[10])[1])


@settings(max_examples=25)
@given(
    shown=st.lists(st.tuples(st.integers(0, 5), st.sampled_from([(2, 3), (4, 1)])), min_size=1, max_size=12),
    batch_size=st.integers(1, 5),
    at_once=st.integers(1, 5),
)
def test_every_stimulus_gets_its_own_features_in_its_own_place(shown, batch_size, at_once):
    torch.manual_seed(0)
    net = Counted()
    stimuli = [np.full((*size, 3), 40 * value, np.uint8) for value, size in shown]
    features = StimulusFeatures(net, "head", batch_size=batch_size, cache=False)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(batches, "AT_ONCE", at_once)
        Counted.n_seen = 0
        found = features(iter(stimuli))["head"]
    assert Counted.n_seen == len(set(shown))
    for row, stimulus in zip(found, stimuli, strict=True):
        torch.testing.assert_close(row, expected(net, stimulus)[1])


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_sounds_are_read_in_full_scale_and_become_one_channel(tmp_path, width):
    path = tmp_path / "tone.wav"
    wanted = np.array([[0.0, 0.5], [-0.5, 0.25], [-1.0, -1.0]])
    whole = np.round(wanted * 2.0 ** (8 * width - 1)).astype(np.int64) + (128 if width == 1 else 0)
    raw = b"".join(int(v).to_bytes(width, "little", signed=width > 1) for v in whole.reshape(-1))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(width)
        file.setframerate(8000)
        file.writeframes(raw)
    clip = read_audio(path)
    np.testing.assert_array_equal(clip.samples, wanted)
    np.testing.assert_allclose(clip.mono(), wanted.mean(1))
    assert clip.duration == 3 / 8000
    net = nn.Sequential(nn.Linear(3, 2))
    torch.testing.assert_close(
        StimulusFeatures(net, "0")([path])["0"][0], net(torch.from_numpy(clip.mono())).detach()
    )


def test_damaged_sounds_and_images_are_errors_that_name_them(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(3)
        file.setframerate(8000)
        file.writeframes(rng.bytes(600))
    Image.fromarray(images(1)[0]).save(tmp_path / "a.gif")
    for name, read in (("a.wav", read_audio), ("a.gif", read_image)):
        content = (tmp_path / name).read_bytes()
        for _ in range(150):
            damaged = bytearray(content[: rng.integers(10, len(content) + 1)])
            for place in rng.integers(0, min(60, len(damaged)), 3):
                damaged[place] = rng.integers(256)
            (tmp_path / f"bad_{name}").write_bytes(damaged)
            with contextlib.suppress(ValueError, ImportError):
                read(tmp_path / f"bad_{name}")


def test_sounds_are_resampled_when_asked_for():
    pytest.importorskip("scipy")
    t = np.arange(4410) / 44100
    clip = AudioClip(np.sin(2 * np.pi * 200 * t), 44100.0)
    found = clip.mono(16000.0)
    assert len(found) == 1600
    np.testing.assert_allclose(
        found[100:-100], np.sin(2 * np.pi * 200 * np.arange(1600) / 16000)[100:-100], atol=2e-3
    )


def test_images_are_turned_as_their_tag_says(tmp_path):
    from PIL import Image

    image = images(1, (4, 7))[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(image, -1))


def test_sixteen_bits_of_gray_become_eight(tmp_path):
    from PIL import Image

    gray = np.array([[0, 257, 32768], [65535, 300, 65000]], np.uint16)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png")[..., 1], np.rint(gray / 257))
