"""Downloads from a server on this machine: what is checked, resumed, tried again, refused and left alone."""

import hashlib
import importlib
import json
import os
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served_files import serving

from neurokern.cli import main
from neurokern.datasets.catalog import DownloadError, download, find_card, make_card
from neurokern.datasets.catalog.card import card_from

pytestmark = pytest.mark.cpu_only
CONTENT = bytes(range(256)) * 4000  # a megabyte, in several pieces
SMALL = b"participant_id\nsub-01\n"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    # The package has a function of this name.
    module = importlib.import_module("neurokern.datasets.catalog.download")
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def served():
    with serving() as server:
        server.files = {"sub-01/a.bin": CONTENT, "sub-02/a.bin": CONTENT[::-1], "participants.tsv": SMALL}
        yield server


def card_of(served, *, digests=True, sizes=True, url=None, **changes):
    files = []
    for path, content in served.files.items():
        entry = {"path": path}
        if sizes:
            entry["bytes"] = len(content)
        if digests:
            entry["sha256"] = hashlib.sha256(content).hexdigest()
        files.append(entry)
    values = {
        "name": "tiny", "title": "Tiny", "modality": ["eeg"], "contains": "little", "license": "CC0",
        "citation": "none", "source": {"kind": "files", "url": url or served.url}, "files": files,
    }  # fmt: skip
    return card_from(values | changes, "test")


def files_in(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and ".neurokern" not in p.parts
    }


def leftovers(folder):
    return [p.name for p in (folder / ".neurokern" / "parts").iterdir()]


def fetch(card, folder, **options):
    return download(card, folder, progress=False, **options)


# ---- what comes


def test_all_files_come_and_a_second_call_asks_for_nothing(served, tmp_path):
    done = fetch(card_of(served), tmp_path)
    assert files_in(tmp_path) == served.files
    assert (done.fetched, done.n_bytes, done.unchecked) == (3, sum(map(len, served.files.values())), ())
    assert not leftovers(tmp_path)
    served.asked.clear()
    assert fetch(card_of(served), tmp_path).fetched == 0
    assert not served.asked


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"subject": "01"}, {"sub-01/a.bin", "participants.tsv"}),
        ({"subject": 2}, {"sub-02/a.bin", "participants.tsv"}),
        ({"subject": ["01", "sub-02"]}, {"sub-01/a.bin", "sub-02/a.bin", "participants.tsv"}),
        ({"include": ["*.bin"], "exclude": ["sub-02/*"]}, {"sub-01/a.bin"}),
    ],
)
def test_a_part_is_chosen_by_entities_and_patterns(served, tmp_path, part, expected):
    fetch(card_of(served), tmp_path, **part)
    assert set(files_in(tmp_path)) == expected


def test_what_fits_nothing_is_an_error(served, tmp_path):
    with pytest.raises(ValueError, match="none of the 3 files fits subject=99"):
        fetch(card_of(served), tmp_path, subject="99")
    with pytest.raises(TypeError, match="full names"):
        fetch(card_of(served), tmp_path, sub="01")


def test_redirects_are_followed(served, tmp_path):
    served.faults["sub-01/a.bin"] = [("to", "/sub-01/a.bin")]
    fetch(card_of(served), tmp_path)
    assert files_in(tmp_path) == served.files


@pytest.mark.parametrize("to", ["file:///etc/hostname", "ftp://127.0.0.1/a"])
def test_redirects_out_of_http_are_not_followed(served, tmp_path, to):
    served.faults["sub-01/a.bin"] = [("to", to)]
    with pytest.raises(DownloadError, match=r"not followed|answers 302"):
        fetch(card_of(served), tmp_path)


# ---- what breaks


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("tags", [True, False], ids=["tags", "no tags"])
def test_a_line_that_breaks_is_taken_up_where_it_broke(served, tmp_path, ranges, tags):
    served.ranges, served.tags = ranges, tags
    served.faults["sub-01/a.bin"] = [("cut", 300_000), ("cut", 700_000)]
    fetch(card_of(served), tmp_path, include=["sub-01/*"])
    assert files_in(tmp_path) == {"sub-01/a.bin": CONTENT}
    starts = [asked for _, asked in served.asked]
    assert starts == [None, "bytes=300000-", "bytes=700000-"]


def test_the_next_call_goes_on_where_the_last_one_stopped(served, tmp_path):
    served.faults["sub-01/a.bin"] = [("cut", 400_000), *[503] * 10]
    with pytest.raises(DownloadError, match="503"):
        fetch(card_of(served), tmp_path, include=["sub-01/*"])
    assert not files_in(tmp_path)
    served.faults.clear()
    served.asked.clear()
    done = fetch(card_of(served), tmp_path, include=["sub-01/*"])
    assert served.asked == [("sub-01/a.bin", "bytes=400000-")]
    assert done.n_bytes == len(CONTENT) - 400_000
    assert files_in(tmp_path) == {"sub-01/a.bin": CONTENT}


@pytest.mark.parametrize("tags", [True, False], ids=["tags", "no tags"])
@pytest.mark.parametrize("digests", [True, False], ids=["digests", "no digests"])
def test_a_file_that_changed_between_two_tries_is_never_put_together_of_both(served, tmp_path, tags, digests):
    new = CONTENT[::-1]
    served.tags = tags
    served.faults["sub-01/a.bin"] = [("cut", 400_000), ("late", new)]
    card = card_of(served, digests=digests)
    if digests:  # the card speaks of the old one
        with pytest.raises(DownloadError, match="its sha256 is"):
            fetch(card, tmp_path, include=["sub-01/*"])
        assert not files_in(tmp_path)
    else:
        fetch(card, tmp_path, include=["sub-01/*"])
        assert files_in(tmp_path) == {"sub-01/a.bin": new}


def test_a_body_that_is_cut_without_a_word_is_noticed_by_its_size(served, tmp_path):
    served.faults["sub-01/a.bin"] = [("short", 10)] * 2
    with pytest.raises(DownloadError, match="has 1,023,990 bytes instead of 1,024,000"):
        fetch(card_of(served), tmp_path, include=["sub-01/*"])
    assert not files_in(tmp_path)
    fetch(card_of(served), tmp_path, include=["sub-01/*"])
    assert files_in(tmp_path) == {"sub-01/a.bin": CONTENT}


def test_a_wrong_hash_is_tried_once_more_and_then_refused(served, tmp_path):
    card = card_of(served)
    served.files["sub-01/a.bin"] = CONTENT[:-1] + b"x"
    with pytest.raises(DownloadError, match=r"sub-01/a\.bin: its sha256 is"):
        fetch(card, tmp_path, include=["sub-01/*"])
    assert len(served.asked) == 2
    assert not files_in(tmp_path)
    assert not [name for name in leftovers(tmp_path) if name.endswith(".part")]


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(served, tmp_path, code):
    served.faults["participants.tsv"] = [code] * 3
    fetch(card_of(served), tmp_path, include=["*.tsv"])
    assert len(served.asked) == 4


def test_a_server_that_stays_busy_is_given_up(served, tmp_path):
    served.faults["participants.tsv"] = [503] * 100
    with pytest.raises(DownloadError, match="answers 503"):
        fetch(card_of(served), tmp_path, include=["*.tsv"])
    assert len(served.asked) == 5


@pytest.mark.parametrize(("code", "message"), [(404, "is not there"), (403, "is not public"), (410, "moved")])
def test_what_will_not_get_better_is_not_asked_for_again(served, tmp_path, code, message):
    served.faults["participants.tsv"] = [code] * 5
    with pytest.raises(DownloadError, match=message):
        fetch(card_of(served), tmp_path, include=["*.tsv"])
    assert len(served.asked) == 1


def test_an_error_page_of_another_size_is_not_taken_for_the_file(served, tmp_path):
    card = card_of(served)
    served.files["participants.tsv"] = b"<html>please log in</html>"
    with pytest.raises(DownloadError, match="an error page came in its place"):
        fetch(card, tmp_path, include=["*.tsv"])
    assert not files_in(tmp_path)


def test_no_server_and_no_name_are_told_apart(served, tmp_path):
    with pytest.raises(DownloadError, match="Connection refused"):
        fetch(card_of(served, url="http://127.0.0.1:9"), tmp_path)
    with pytest.raises(DownloadError, match="is this machine online"):
        fetch(card_of(served, url="http://nowhere.invalid"), tmp_path)


def test_a_cut_line_in_each_try_of_a_server_without_ranges_comes_to_an_end(served, tmp_path):
    served.ranges = False
    served.faults["sub-01/a.bin"] = [("cut", 300_000)] * 100
    with pytest.raises(DownloadError, match="the line broke at 300,000"):
        fetch(card_of(served), tmp_path, include=["sub-01/*"])
    assert len(served.asked) < 10


# ---- what is there already


def test_files_of_another_hand_are_not_written_over_unless_asked(served, tmp_path):
    (tmp_path / "participants.tsv").write_text("my own notes")
    with pytest.raises(DownloadError, match="is there and not what the source has"):
        fetch(card_of(served), tmp_path)
    assert (tmp_path / "participants.tsv").read_text() == "my own notes"
    fetch(card_of(served), tmp_path, verify=True)
    assert files_in(tmp_path) == served.files


def test_whole_files_that_lie_there_are_taken_as_they_are(served, tmp_path):
    (tmp_path / "participants.tsv").write_bytes(SMALL)
    assert fetch(card_of(served), tmp_path, include=["*.tsv"]).fetched == 0
    assert not served.asked


def test_damage_since_the_download_is_found_by_verify(served, tmp_path):
    fetch(card_of(served), tmp_path)
    file, status = tmp_path / "sub-01/a.bin", (tmp_path / "sub-01/a.bin").stat()
    file.write_bytes(CONTENT[:-1] + b"x")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a disk does it
    assert fetch(card_of(served), tmp_path).fetched == 0
    assert fetch(card_of(served), tmp_path, verify=True).fetched == 1
    assert files_in(tmp_path) == served.files


def test_a_newer_version_takes_the_place_of_what_was_downloaded(served, tmp_path):
    fetch(card_of(served), tmp_path)
    served.files["participants.tsv"] += b"sub-02\n"
    assert fetch(card_of(served), tmp_path).fetched == 1
    assert files_in(tmp_path) == served.files


def test_two_programs_fetch_each_file_once(served, tmp_path):
    errors = []

    def one():
        try:
            fetch(card_of(served), tmp_path)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(path for path, _ in served.asked) == sorted(served.files)
    assert files_in(tmp_path) == served.files


def test_files_without_digest_or_size_are_named(served, tmp_path):
    done = fetch(card_of(served, digests=False, sizes=False), tmp_path)
    assert set(done.unchecked) == set(served.files)
    served.asked.clear()
    assert fetch(card_of(served, digests=False, sizes=False), tmp_path).fetched == 0
    assert not served.asked


def test_a_disk_without_room_is_told_before_anything_comes(served, tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 5, 5))
    with pytest.raises(OSError, match="are needed"):
        fetch(card_of(served), tmp_path)
    assert not served.asked


# ---- what a list may not do


def test_a_link_in_the_folder_does_not_lead_out_of_it(served, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sub-01").symlink_to(outside)
    with pytest.raises(OSError, match="leads out of the dataset's folder"):
        fetch(card_of(served), tmp_path / "data")
    assert not list(outside.iterdir())


@given(st.lists(st.sampled_from([300_000, 100, 1_023_999, 429, 500]), max_size=6))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_breaks_what_is_there_at_the_end_is_whole(served, tmp_path_factory, breaks):
    folder = tmp_path_factory.mktemp("breaks")
    served.faults["sub-01/a.bin"] = [n if n < 600 and n > 100 else ("cut", n) for n in breaks]
    for _ in range(2):
        try:
            fetch(card_of(served), folder, include=["sub-01/*"])
            break
        except DownloadError:
            assert not files_in(folder)
    assert files_in(folder) in ({}, {"sub-01/a.bin": CONTENT})


# ---- the command


def test_a_card_of_a_folder_fetches_the_same_folder(served, tmp_path, capsys):
    folder = tmp_path / "lab"
    (folder / "sub-01").mkdir(parents=True)
    (folder / "sub-01" / "a.bin").write_bytes(CONTENT)
    (folder / "participants.tsv").write_bytes(SMALL)
    (folder / ".secret").write_text("not for others")
    texts = {"name": "lab", "title": "Lab", "contains": "x", "license": "CC0", "citation": "us"}
    flags = [f"--{name}={text}" for name, text in texts.items()]
    card = str(tmp_path / "lab.yaml")
    assert (
        main(["catalog", "make", str(folder), "--url", served.url, "--modality=eeg", "--out", card, *flags])
        == 0
    )
    assert {file.path for file in find_card(card).files} == {"sub-01/a.bin", "participants.tsv"}
    copy = tmp_path / "copy"
    for expected in (2, 0):
        capsys.readouterr()
        assert main(["catalog", "download", card, str(copy), "--json", "--select", "subject=1"]) == 0
        assert json.loads(capsys.readouterr().out)["fetched"] == expected
    (folder / ".secret").unlink()
    assert files_in(copy) == files_in(folder)


def test_the_command_says_what_would_be_fetched_and_what_is_wrong(served, tmp_path, capsys, monkeypatch):
    card = tmp_path / "card.yaml"
    make = {"title": "T", "contains": "x", "license": "CC0", "citation": "us", "modality": ["eeg"]}
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "participants.tsv").write_bytes(SMALL)
    _, values = make_card(tmp_path / "d", name="tiny", url=served.url, **make)
    card.write_text(json.dumps(values))
    assert main(["catalog", "download", str(card), str(tmp_path / "to"), "--dry-run"]) == 0
    assert "participants.tsv" in capsys.readouterr().out
    assert not (tmp_path / "to").exists()
    served.files.clear()
    assert main(["catalog", "download", str(card), str(tmp_path / "to")]) == 2
    assert "is not there" in capsys.readouterr().err
