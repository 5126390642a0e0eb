"""Facts of one NIfTI image: what its header, its sidecar and its bytes on disk say."""

from __future__ import annotations

import pathlib
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from neurokern.datasets import BIDSRun
    from neurokern.ops import NiftiFile, NiftiHeader

__all__ = ["describe_image", "image_rows", "is_image", "sizes_text", "tr_facts"]

_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz")
_SPACES = {
    0: "unknown",
    1: "scanner",
    2: "aligned to another image",
    3: "Talairach",
    4: "MNI",
    5: "a template",
}
_EXTENSIONS = {2: "DICOM", 4: "AFNI", 6: "comment", 8: "XCEDE", 18: "workflow", 32: "CIFTI", 44: "MATLAB"}
_MOST_EXTENSION_BYTES = 1 << 20
_TR_TOLERANCE = 1e-3  # seconds: headers hold TRs as float32, sidecars as people write them
_LONGEST_TR = 100.0  # seconds; above, a header holds milliseconds and says seconds


def is_image(path: pathlib.Path) -> bool:
    """Return whether a name is that of a NIfTI file."""
    return path.name.lower().endswith(_SUFFIXES)


def describe_image(path: pathlib.Path) -> dict[str, Any]:
    """Return facts about an image. What free text of the header or an extension says is left out.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read or is no NIfTI image.
    """
    from neurokern.datasets import BIDSRun
    from neurokern.datasets.bids_file import find_run
    from neurokern.ops import NiftiFile

    file = NiftiFile(path)
    header = file.header
    try:
        run, unread = find_run(path), []
    except ValueError as error:  # of a sidecar or a table
        run, unread = BIDSRun(path=path, entities={}, metadata={}, events=None, confounds=None), [str(error)]
    timing, warnings = tr_facts(header, run)
    extensions, said = _extensions(file)
    return {
        "source": path.name,
        "holds": f"NIfTI-{header.version}, {_kind(header)}",
        "shape": [*header.shape, header.n_volumes] if header.has_time else list(header.shape),
        "zooms": [round(size, 6) for size in header.zooms],
        "spatial_unit": header.spatial_unit,
        **timing,
        "dtype": header.dtype,
        "byte_order": header.byte_order,
        "slope": header.slope,
        "inter": header.inter,
        "orientation": header.orientation,
        "oblique_degrees": None if np.isnan(header.obliqueness) else round(header.obliqueness, 2),
        "affine": np.round(header.affine, 6).tolist(),
        "affine_source": header.affine_source,
        "sform_code": header.sform_code,
        "qform_code": header.qform_code,
        "compressed": file.is_compressed,
        "bytes_on_disk": sum(part.stat().st_size for part in file.parts),
        "bytes_decoded": header.n_bytes,
        "extensions": extensions,
        "warnings": [*unread, *warnings, *_grid_warnings(header), *said],
    }


def tr_facts(header: NiftiHeader, run: BIDSRun) -> tuple[dict[str, Any], list[str]]:
    """Return the seconds between volumes, whose word that is, and what is doubtful about it."""
    facts: dict[str, Any] = {"tr_s": None, "tr_source": None, "tr_header_s": None, "tr_header_unit": None}
    if not header.has_time:
        return facts, []
    facts |= {"tr_header_s": _rounded(header.tr), "tr_header_unit": header.time_unit}
    warnings = []
    sidecar = None
    if "RepetitionTime" in run.metadata:
        try:
            sidecar = run.repetition_time
        except ValueError as error:
            warnings.append(str(error).removeprefix(f"{run.path}: "))
    if sidecar is not None:
        facts |= {"tr_s": sidecar, "tr_source": "sidecar"}
        if header.tr is not None and abs(header.tr - sidecar) > _TR_TOLERANCE:
            warnings.append(
                f"TR is {sidecar:g} s by the sidecar and {header.tr:g} s by the header; the sidecar is "
                "believed, tools that read the header alone are wrong by "
                f"{abs(header.tr - sidecar) * (header.n_volumes - 1):.3g} s at the end of the run"
            )
        return facts, warnings
    if header.tr is not None:
        facts |= {"tr_s": facts["tr_header_s"], "tr_source": "header"}
        if header.tr > _LONGEST_TR:
            warnings.append(f"TR is {header.tr:g} s by the header; are these milliseconds?")
    if "RepetitionTime" not in run.metadata:
        warnings.append(
            "no sidecar (.json) with RepetitionTime: the TR is the header's guess; write it into one"
            if header.tr is not None
            else "neither a sidecar (.json) nor the header holds a TR; write RepetitionTime into a sidecar"
        )
    return facts, warnings


def image_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the facts as names and text, for people."""
    unit = facts["spatial_unit"] or "mm (no unit in the header)"
    rows = [
        ("holds", facts["holds"]),
        ("shape", sizes_text(facts["shape"])),
        ("voxels", f"{sizes_text(facts['zooms'])} {unit}"),
    ]
    if len(facts["shape"]) > 3:
        rows.append(("TR", _tr_text(facts)))
    scaled = (facts["slope"], facts["inter"]) != (1.0, 0.0)
    scale = f"value = {facts['slope']:g} × raw + {facts['inter']:g}" if scaled else "no scaling"
    rows += [
        ("values", f"{facts['dtype']}, {facts['byte_order']}-endian, {scale}"),
        ("axes", _axes_text(facts)),
        (
            "affine",
            f"from {facts['affine_source']}" if facts["affine_source"] != "none" else "from voxel sizes",
        ),
        ("sform", _space_text(facts["sform_code"])),
        ("qform", _space_text(facts["qform_code"])),
        ("file", _size_text(facts)),
    ]
    for one in facts["extensions"]:
        rows.append(("extension", f"{one['name']} (code {one['code']}), {one['bytes']:,} bytes"))
    return rows


def sizes_text(sizes: Any) -> str:
    """Return sizes along axes, such as ``"40 × 40 × 35"``."""
    return " × ".join(f"{size:g}" if isinstance(size, float) else f"{int(size):,}" for size in sizes)


def _kind(header: NiftiHeader) -> str:
    if not header.has_time:
        return "one image"
    return f"{header.n_volumes:,} volume{'s' if header.n_volumes != 1 else ''}"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _grid_warnings(header: NiftiHeader) -> list[str]:
    warnings = []
    if header.affine_source == "none":
        warnings.append("neither sform nor qform says where the image lies; left and right are a guess")
    if np.isnan(header.obliqueness) or abs(np.linalg.det(header.affine[:3, :3])) < 1e-9:
        warnings.append(
            f"the affine from {header.affine_source} has no volume; the image has no place in space"
        )
        return warnings
    sizes = np.linalg.norm(header.affine[:3, :3], axis=0)
    scale = {"m": 1000.0, "um": 0.001}.get(header.spatial_unit or "mm", 1.0)
    if not np.allclose(sizes, np.array(header.zooms) * scale, rtol=1e-2):
        warnings.append(
            f"voxel sizes are {sizes_text(header.zooms)} by pixdim and {sizes_text(sizes)} by the "
            f"{header.affine_source}"
        )
    return warnings


def _extensions(file: NiftiFile) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the header's extensions, by code and size alone: what they say may name the subject."""
    start = 348 if file.header.version == 1 else 540
    end = file.header.offset if len(file.parts) == 1 else _MOST_EXTENSION_BYTES
    head = file.first_bytes(min(end, _MOST_EXTENSION_BYTES))
    at = start + 4
    found: list[dict[str, Any]] = []
    order = "<" if file.header.byte_order == "little" else ">"
    if len(head) < at or head[start] == 0:
        return [], []
    while at + 8 <= len(head):
        size, code = struct.unpack_from(f"{order}ii", head, at)
        if size < 8 or at + size > end:
            return found, [
                f"an extension of the header must fit before the values, got {size} bytes at byte {at}"
            ]
        found.append({"code": code, "name": _EXTENSIONS.get(code, "other"), "bytes": size})
        at += size
    dicom = any(one["code"] == 2 for one in found)
    return found, ["the header carries a DICOM extension, which may name the subject"] if dicom else []


def _tr_text(facts: dict[str, Any]) -> str:
    unit = f"in {facts['tr_header_unit']}" if facts["tr_header_unit"] else "without a unit"
    if facts["tr_source"] is None:
        return "neither in a sidecar nor in the header"
    header = (
        "none in the header" if facts["tr_header_s"] is None else f"{facts['tr_header_s']:g} s by the header"
    )
    text = f"{header}, stored {unit}"
    if facts["tr_source"] == "sidecar":
        text = f"{facts['tr_s']:g} s by the sidecar ({text})"
    return f"{text}; {facts['tr_s'] * facts['shape'][3]:g} s in all"


def _axes_text(facts: dict[str, Any]) -> str:
    words = {"R": "right", "L": "left", "A": "anterior", "P": "posterior", "S": "superior", "I": "inferior"}
    leads = [f"{axis} {words[end]}" for axis, end in zip("xyz", facts["orientation"], strict=True)]
    text = f"{facts['orientation']}: {', '.join(leads)}"
    if facts["oblique_degrees"]:
        text += f"; oblique, up to {facts['oblique_degrees']:.1f}°"
    return text


def _space_text(code: int) -> str:
    return "not set" if code == 0 else f"{code}, {_SPACES.get(code, 'unknown')}"


def _size_text(facts: dict[str, Any]) -> str:
    disk, decoded = facts["bytes_on_disk"], facts["bytes_decoded"]
    if not facts["compressed"]:
        return f"{_megabytes(disk)}, not compressed (mapped, not read)"
    return f"{_megabytes(disk)} compressed, {_megabytes(decoded)} decoded ({decoded / disk:.2g} times)"


def _megabytes(n: int) -> str:
    return f"{n / 1e6:,.1f} MB" if n >= 1e5 else f"{n:,} bytes"
