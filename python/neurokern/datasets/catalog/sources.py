"""The lists of files that sources publish, with sizes and digests, and the choice of some of them."""

from __future__ import annotations

import fnmatch
import urllib.parse
import xml.etree.ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from neurokern.datasets.bids_index import ENTITIES
from neurokern.datasets.catalog._http import DownloadError, get, get_json
from neurokern.datasets.catalog.card import Card, RemoteFile, check_digest, check_path, first_digest, join_url

__all__ = ["list_files", "select_files", "with_digests"]

_MOST_PAGES = 10_000
_AT_ONCE = 8  # requests for digests


def list_files(card: Card) -> list[RemoteFile]:
    """Return the files of a dataset: the card's own list, or the one that its source publishes now.

    Raises
    ------
    DownloadError
        If the source cannot be reached, or its list cannot be understood.
    ValueError
        If the dataset has to be fetched by hand, or a path leads out of its folder.
    """
    kind = card.source["kind"]
    if kind == "manual":
        raise ValueError(f"catalog: {card.name} is fetched by hand: {' '.join(card.source['how'].split())}")
    try:
        files = list(_LISTS[kind](card))
    except (KeyError, TypeError, AttributeError, xml.etree.ElementTree.ParseError) as error:
        raise DownloadError(
            f"{card.name}: the list of its source is not understood ({error!r}); has its interface changed?"
        ) from error
    if not files:
        raise DownloadError(f"{card.name}: its source lists no files; see {card.homepage}")
    return sorted(files, key=lambda file: file.path)


def select_files(
    files: Sequence[RemoteFile],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    **entities: Any,
) -> list[RemoteFile]:
    """Return some of the files.

    Parameters
    ----------
    files : sequence of RemoteFile
    include, exclude : sequence of str
        Patterns of paths, with ``*`` for any text: those to take (all without), and of them those to leave.
    **entities : str, int or list of them
        BIDS entities by their full names, such as ``subject=["01", "02"]``. Files that do not name an entity,
        such as ``participants.tsv``, belong to all of its values.

    Raises
    ------
    TypeError
        If an entity's name is unknown.
    ValueError
        If nothing is left, or no file names an entity that is asked for.
    """
    short = {full: key for key, full in ENTITIES.items()}
    for name in entities:
        if name not in short:
            raise TypeError(f"catalog: entities go by their full names (subject, session, ...), got {name!r}")
    kept = []
    named = dict.fromkeys(entities, False)
    for file in files:
        has = _entities_of(file.path)
        fits = {}
        for name, wanted in entities.items():
            value = has.get(short[name])
            options = wanted if isinstance(wanted, (list, tuple, set)) else [wanted]
            fits[name] = value is None or any(_same(short[name], value, option) for option in options)
            named[name] |= value is not None and fits[name]
        taken = not include or any(fnmatch.fnmatchcase(file.path, pattern) for pattern in include)
        left = any(fnmatch.fnmatchcase(file.path, pattern) for pattern in exclude)
        if taken and not left and all(fits.values()):
            kept.append(file)
    missing = [f"{name}={entities[name]}" for name, found in named.items() if not found]
    if missing or not kept:
        what = ", ".join(missing) or "include and exclude"
        raise ValueError(f"catalog: none of the {len(files)} files fits {what}")
    return kept


def _entities_of(path: str) -> dict[str, str]:
    """Return the entities that a path names, by their keys: of ``sub-01/func/sub-01_task-rest_bold.json``."""
    found = {}
    for part in path.split("/"):
        for pair in part.partition(".")[0].split("_"):
            key, dash, value = pair.partition("-")
            if dash and key in ENTITIES:
                found[key] = value
    return found


def _same(key: str, value: str, wanted: Any) -> bool:
    text = str(wanted).removeprefix(f"{key}-")
    return value == text or (value.isdigit() and text.isdigit() and int(value) == int(text))


def with_digests(card: Card, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Return the files with digests that the source keeps apart from its list."""
    if not any(file.facts_url for file in files):
        return list(files)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(_with_digest, files))


def _with_digest(file: RemoteFile) -> RemoteFile:
    if file.facts_url is None:
        return file
    digest = (get_json(file.facts_url).get("digest") or {}).get("dandi:sha2-256")
    return file if digest is None else replace(file, digest=check_digest("sha256", digest, file.path))


def _of_card(card: Card) -> Iterator[RemoteFile]:
    yield from card.files


def _of_s3(card: Card) -> Iterator[RemoteFile]:
    """List a public bucket (ListObjectsV2). An ETag is the MD5 of objects that were uploaded in one part."""
    url, prefix = str(card.source["url"]).rstrip("/"), str(card.source["prefix"])
    query = {"list-type": "2", "prefix": prefix}
    for _ in range(_MOST_PAGES):
        root = xml.etree.ElementTree.fromstring(get(f"{url}?{urllib.parse.urlencode(query)}"))
        name = root.tag.removesuffix("ListBucketResult")  # with the namespace, in braces
        for entry in root.findall(f"{name}Contents"):
            key = entry.findtext(f"{name}Key") or ""
            if key.endswith("/") or not key.startswith(prefix):
                continue
            tag = (entry.findtext(f"{name}ETag") or "").strip('"')
            digest = None if "-" in tag or len(tag) != 32 else check_digest("md5", tag, key)
            path = check_path(key[len(prefix) :], card.name)
            yield RemoteFile(path, join_url(url, key), int(entry.findtext(f"{name}Size") or 0), digest)
        token = root.findtext(f"{name}NextContinuationToken")
        if root.findtext(f"{name}IsTruncated") != "true" or not token:
            return
        query["continuation-token"] = token


def _of_dandi(card: Card) -> Iterator[RemoteFile]:
    """List the assets of the latest published version, or of the draft where there is none."""
    api, dandiset = str(card.source["api"]).rstrip("/"), card.source["dandiset"]
    facts = get_json(f"{api}/dandisets/{dandiset}/")
    version = card.source.get("version") or (facts.get("most_recent_published_version") or {}).get("version")
    first = f"{api}/dandisets/{dandiset}/versions/{version or 'draft'}/assets/?page_size=1000"
    for page in _pages(first, lambda page: page.get("next")):
        for asset in page["results"]:
            one = f"{api}/assets/{urllib.parse.quote(asset['asset_id'])}/"
            path = check_path(asset["path"], card.name)
            yield RemoteFile(path, f"{one}download/", int(asset["size"]), None, one)


def _of_figshare(card: Card) -> Iterator[RemoteFile]:
    article = get_json(f"{str(card.source['api']).rstrip('/')}/articles/{card.source['article']}")
    for file in article["files"]:
        if not file.get("is_link_only"):
            path, md5 = check_path(file["name"], card.name), file.get("computed_md5")
            digest = check_digest("md5", md5, path) if md5 else None
            yield RemoteFile(path, file["download_url"], int(file["size"]), digest)


def _of_osf(card: Card) -> Iterator[RemoteFile]:
    """List a project's own storage, and those of its components in folders of their titles."""
    nodes = f"{str(card.source['api']).rstrip('/')}/nodes/"
    yield from _osf_folder(card, f"{nodes}{card.source['node']}/files/osfstorage/", "")
    for page in _pages(f"{nodes}{card.source['node']}/children/", _next_of_osf):
        for child in page["data"]:
            title = child["attributes"]["title"].replace("/", "_").replace("\\", "_").strip()
            yield from _osf_folder(card, f"{nodes}{child['id']}/files/osfstorage/", f"{title}/")


def _osf_folder(card: Card, url: str, above: str, depth: int = 0) -> Iterator[RemoteFile]:
    if depth > 50:
        raise DownloadError(f"{card.name}: folders of its source are nested without an end")
    for page in _pages(url, _next_of_osf):
        for entry in page["data"]:
            facts = entry["attributes"]
            path = check_path(above + facts["name"], card.name)
            if facts["kind"] == "folder":
                inside = entry["relationships"]["files"]["links"]["related"]["href"]
                yield from _osf_folder(card, inside, f"{path}/", depth + 1)
                continue
            hashes = (facts.get("extra") or {}).get("hashes") or {}
            size = None if facts.get("size") is None else int(facts["size"])
            yield RemoteFile(path, entry["links"]["download"], size, first_digest(hashes, path))


def _next_of_osf(page: Mapping[str, Any]) -> Any:
    return page["links"].get("next")


def _pages(url: str, next_of: Callable[[Any], Any]) -> Iterator[Any]:
    for _ in range(_MOST_PAGES):
        page = get_json(url)
        yield page
        following = next_of(page)
        if not following:
            return
        url = following


_LISTS: dict[str, Callable[[Card], Iterator[RemoteFile]]] = {
    "files": _of_card,
    "s3": _of_s3,
    "dandi": _of_dandi,
    "figshare": _of_figshare,
    "osf": _of_osf,
}
