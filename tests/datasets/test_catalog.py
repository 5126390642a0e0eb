"""Cards: those that ship, those of users and packages, what is refused in them, and the lists of sources."""

import hashlib
import importlib.metadata
import json
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from served_files import serving

from neurokern.cli import main
from neurokern.datasets.catalog import (
    DownloadError,
    cards,
    download,
    find_card,
    list_files,
    make_card,
    read_card,
)
from neurokern.datasets.catalog.card import card_from, check_path

pytestmark = pytest.mark.cpu_only
MD5 = "d41d8cd98f00b204e9800998ecf8427e"


@pytest.fixture(autouse=True)
def no_cards_of_this_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("NEUROKERN_CARDS", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def served():
    with serving() as server:
        yield server


def values(**changes):
    return {
        "name": "tiny", "title": "Tiny", "modality": ["eeg"], "contains": "little", "license": "CC0",
        "citation": "none", "source": {"kind": "files", "url": "http://localhost"}, "files": [{"path": "a"}],
    } | changes  # fmt: skip


def of_source(**source):
    return card_from({**values(source=source), "files": []}, "test")


# ---- cards


def test_shipped_cards_say_what_was_checked_and_whom_to_cite():
    every = cards()
    wanted = {"steinmetz2019", "ibl-repeated-site", "nlb-mc-maze", "things-eeg2", "studyforrest"}
    assert wanted <= set(every)
    for card in every.values():
        for text in (card.checked, card.load, card.homepage, card.citation, card.license):
            assert text
        assert card.homepage.startswith("https://")
        assert not card.files  # digests come from the source: none were invented


def test_users_have_cards_of_their_own_which_win(tmp_path, monkeypatch):
    own = tmp_path / "config" / "neurokern" / "cards"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text(yaml.safe_dump(values(name="studyforrest", title="Mine")))
    assert find_card("studyforrest").title == "Mine"
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.yaml").write_text(yaml.safe_dump(values(name="b")))
    monkeypatch.setenv("NEUROKERN_CARDS", f"{tmp_path / 'none'}:{other}")
    assert find_card("b").name == "b"
    assert find_card(str(other / "b.yaml")).name == "b"
    assert find_card("studyforrest").title != "Mine"


def test_packages_bring_cards_by_entry_points(tmp_path, monkeypatch):
    (tmp_path / "of_package.yaml").write_text(yaml.safe_dump(values(name="of-package")))

    class Entry:
        def load(self):
            return lambda: tmp_path

    found = importlib.metadata.entry_points
    monkeypatch.setattr(
        importlib.metadata,
        "entry_points",
        lambda group: [Entry()] if "cards" in group else found(group=group),
    )
    assert "of-package" in cards()


def test_an_unknown_name_is_answered_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"no card 'studyforest'; there are .*studyforrest"):
        find_card("studyforest")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../a"}, "name must be of small letters"),
        ({"license": ""}, "license must be given"),
        ({"citation": None}, "citation must be given"),
        ({"modality": []}, "modality must be a list"),
        ({"colour": "red"}, "unknown key colour"),
        ({"source": {"kind": "ftp"}}, "source.kind must be one of"),
        ({"source": {"kind": "files"}}, "source.url must be given"),
        ({"source": {"kind": "files", "url": "file:///etc"}}, r"must begin with http\(s\)"),
        ({"files": []}, "must list files"),
        ({"files": ["a"]}, "must have path, bytes and sha256"),
        ({"files": [{"path": "a"}, {"path": "./a"}]}, "a is listed twice"),
        ({"files": [{"path": "a", "bytes": -1}]}, "bytes of a must be a whole number"),
        ({"files": [{"path": "a", "sha256": "12"}]}, "sha256 must have 64 hexadecimal digits"),
        ({"source": {"kind": "manual", "how": "ask"}}, "files belong to a source of kind 'files'"),
    ],
)
def test_what_is_wrong_in_a_card_is_named(changes, message, tmp_path):
    file = tmp_path / "card.yaml"
    file.write_text(yaml.safe_dump(values(**changes)))
    with pytest.raises(ValueError, match=rf"card\.yaml: .*{message}"):
        read_card(file)


@pytest.mark.parametrize(
    "path",
    [
        "../a",
        "a/../../b",
        "/etc/passwd",
        "",
        ".",
        "a\\..\\b",
        "C:/a",
        "a\0b",
        "a\nb",
        ".neurokern/parts/x",
        3,
    ],
)
def test_paths_that_lead_out_of_the_folder_are_refused(path):
    with pytest.raises(ValueError, match="path must"):
        check_path(path, "test")


@given(st.text(st.sampled_from("ab./\\ ~:é-"), max_size=12))
def test_whatever_path_is_taken_stays_below_the_folder(tmp_path_factory, path):
    folder = tmp_path_factory.getbasetemp()
    try:
        checked = check_path(path, "test")
    except ValueError:
        return
    assert (folder / checked).resolve().is_relative_to(folder.resolve())
    assert (folder / checked) != folder


# ---- lists of sources


def test_a_bucket_is_listed_page_by_page_and_simple_etags_are_digests(served):
    def page(entries, token=None):
        more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
        rows = "".join(
            f"<Contents><Key>ds1/{key}</Key><Size>{size}</Size><ETag>&quot;{tag}&quot;</ETag></Contents>"
            for key, size, tag in entries
        )
        return (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{'true' if token else 'false'}</IsTruncated>{more}{rows}</ListBucketResult>"
        ).encode()

    served.files = {
        "bucket?list-type=2&prefix=ds1/": page([("a b.tsv", 0, MD5), ("sub/", 0, MD5)], "t"),
        "bucket?list-type=2&prefix=ds1/&continuation-token=t": page([("big.nii.gz", 9, MD5 + "-2")]),
    }
    files = list_files(of_source(kind="s3", url=f"{served.url}/bucket", prefix="ds1/"))
    assert [(f.path, f.n_bytes, f.digest) for f in files] == [
        ("a b.tsv", 0, ("md5", MD5)),
        ("big.nii.gz", 9, None),
    ]
    assert files[0].url == f"{served.url}/bucket/ds1/a%20b.tsv"


def test_a_bucket_that_names_files_elsewhere_is_refused(served):
    body = "<ListBucketResult><Contents><Key>ds1/../../x</Key><Size>1</Size></Contents></ListBucketResult>"
    served.files = {"b?list-type=2&prefix=ds1/": body.encode()}
    with pytest.raises(ValueError, match="below the dataset's folder"):
        list_files(of_source(kind="s3", url=f"{served.url}/b", prefix="ds1/"))


def test_the_published_version_of_a_dandiset_is_downloaded_and_compared(served, tmp_path):
    content = b"an NWB file"
    first = "dandisets/000128/versions/0.2/assets/?page_size=1000"
    asset = {"asset_id": "x-1", "path": "sub-a/a.nwb", "size": len(content)}
    served.files = {
        "dandisets/000128/": json.dumps({"most_recent_published_version": {"version": "0.2"}}).encode(),
        first: json.dumps({"next": f"{served.url}/two", "results": []}).encode(),
        "two": json.dumps({"next": None, "results": [asset]}).encode(),
        "assets/x-1/": json.dumps(
            {"digest": {"dandi:sha2-256": hashlib.sha256(content).hexdigest()}}
        ).encode(),
        "assets/x-1/download/": content,
    }
    card = of_source(kind="dandi", api=served.url, dandiset="000128")
    done = download(card, tmp_path, progress=False)
    assert (tmp_path / "sub-a" / "a.nwb").read_bytes() == content
    assert (done.fetched, done.unchecked) == (1, ())
    assert download(card, tmp_path, progress=False).fetched == 0
    served.files["assets/x-1/download/"] = b"another one"
    (tmp_path / "sub-a" / "a.nwb").unlink()
    with pytest.raises(DownloadError, match="its sha256 is"):
        download(card, tmp_path, progress=False)


def test_files_of_figshare_carry_their_md5(served):
    entry = {"name": "a.tar", "size": 3, "download_url": f"{served.url}/f/1", "computed_md5": MD5}
    elsewhere = {**entry, "name": "b", "is_link_only": True}
    served.files = {"articles/7": json.dumps({"files": [entry, elsewhere]}).encode()}
    (file,) = list_files(of_source(kind="figshare", api=served.url, article=7))
    assert (file.path, file.n_bytes, file.digest, file.url) == ("a.tar", 3, ("md5", MD5), f"{served.url}/f/1")


def test_folders_and_components_of_osf_are_walked(served):
    def page(*entries, following=None):
        return json.dumps({"data": list(entries), "links": {"next": following}}).encode()

    def file(name):
        facts = {
            "name": name,
            "kind": "file",
            "size": 5,
            "extra": {"hashes": {"sha256": "a" * 64, "md5": MD5}},
        }
        return {"attributes": facts, "links": {"download": f"{served.url}/get/{name}"}}

    related = {"files": {"links": {"related": {"href": f"{served.url}/inside"}}}}
    folder = {"attributes": {"name": "sub-01", "kind": "folder"}, "relationships": related}
    served.files = {
        "nodes/abc/files/osfstorage/": page(file("a"), following=f"{served.url}/more"),
        "more": page(folder),
        "inside": page(file("b")),
        "nodes/abc/children/": page({"id": "xyz", "attributes": {"title": "raw/data"}}),
        "nodes/xyz/files/osfstorage/": page(file("c")),
    }
    files = list_files(of_source(kind="osf", api=served.url, node="abc"))
    assert [f.path for f in files] == ["a", "raw_data/c", "sub-01/b"]
    assert {f.digest for f in files} == {("sha256", "a" * 64)}


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"{}", b'{"files": [{}]}', b'{"files": []}', b""])
def test_a_list_that_is_not_understood_is_an_error_that_says_so(served, answer):
    served.files = {"articles/7": answer}
    with pytest.raises(DownloadError, match=r"interface changed|lists no files"):
        list_files(of_source(kind="figshare", api=served.url, article=7))


def test_what_is_fetched_by_hand_says_how(capsys):
    assert main(["catalog", "download", "ibl-repeated-site"]) == 2
    assert "pip install ONE-api" in capsys.readouterr().err


# ---- making and showing


def test_a_folder_with_links_out_of_it_makes_no_card(tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "lab" / "a").symlink_to(tmp_path / "secret")
    texts = {k: v for k, v in values().items() if k not in ("source", "files")}
    with pytest.raises(ValueError, match="leads nowhere, or out of the folder"):
        make_card(tmp_path / "lab", url="http://localhost", **texts)


def test_the_catalog_is_listed_and_shown(capsys):
    assert main(["catalog"]) == 0
    assert "studyforrest" in capsys.readouterr().out
    assert main(["catalog", "show", "steinmetz2019"]) == 0
    assert "10.6084/m9.figshare.9974357" in re.sub(r"\s", "", capsys.readouterr().out)
    assert main(["catalog", "list", "--json"]) == 0
    assert {card["name"] for card in json.loads(capsys.readouterr().out)} == set(cards())
    assert main(["catalog", "show"]) == 2
    assert main(["catalog", "make", "."]) == 2
    assert "needs --name, --url" in capsys.readouterr().err
