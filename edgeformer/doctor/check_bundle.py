"""Checks of a bundle's files, of what they ask of a device, and of an app's native libraries."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from edgeformer.doctor.examination import Examination
from edgeformer.doctor.examiner import Finding, Value, error, fine, info, older, parse_version, warning
from edgeformer_runtime.bundle.manifest import MANIFEST_NAME
from edgeformer_runtime.cli.tables import refusals
from edgeformer_runtime.errors import BundleError, InputError

# Check: every file is as the manifest states, and who vouches for the manifest.


INTEGRITY = "integrity"


def check_integrity(examination: Examination) -> Iterable[Finding]:
    """What opening the bundle has shown already, and the state of its signature."""
    bundle = examination.bundle
    yield fine(INTEGRITY, f"{len(bundle.manifest.files)} files, all with the manifest's hashes")
    if bundle.refused:
        yield error(
            INTEGRITY,
            f"the gates of its conversion refused it: {'; '.join(refusals(bundle))}",
            "its answers are farther from its checkpoint's than its precision allows; no reader answers unasked",
            "convert it otherwise; `edgeformer verify --layers` names a wrong layer, `edgeformer eval` what it costs",
        )
    state = bundle.signature
    if state.checked_by is not None:
        yield fine("signature", f"valid, by the key {state.checked_by[:16]}")
    elif state.signed:
        yield info(
            "signature",
            "signed, but not checked",
            "a signature protects only those who check it",
            "name the publisher's key with --require-signature",
        )
    else:
        yield info(
            "signature",
            "unsigned",
            "hashes show accidents, not attacks: who can change a file can change its hash as well",
            "sign it (edgeformer sign) if it travels to devices apart from the app",
        )


def refused(path: Path, problem: BundleError, signature_required: bool) -> Finding:
    """What a bundle that the reader refuses is said to have.

    Raises:
        BundleError: the path is no bundle at all.
    """
    if not ((path / MANIFEST_NAME).is_file() or zipfile.is_zipfile(path)):
        raise problem
    return error(
        "signature" if signature_required and "signature" in str(problem) else INTEGRITY,
        str(problem),
        "every reader refuses the bundle, and nothing else of it was looked at",
        "fetch the bundle from where it was published, or convert the checkpoint again",
    )


# Check: what the programs take of a device's memory.


MEMORY = "memory"
# A phone of 4 GB gives an app in the foreground about a third of it before the system ends it.
LARGE_BYTES = 1_200_000_000


def check_memory(examination: Examination) -> Iterable[Finding]:
    """The program whose activations take the most, and the size of the weights."""
    name, peak = max(examination.peaks.items(), key=lambda item: item[1].size_bytes)
    planned = max((program.planned_bytes or 0 for program in examination.view.programs), default=0)
    weights = examination.bundle.model_size_bytes
    plan = f", of which the file plans {planned / 1e6:.1f} MB" if planned else ""
    what = (
        f"activations take up to {peak.size_bytes / 1e6:.1f} MB ({name}, at {peak.operator}){plan};"
        f" the model's files have {weights / 1e6:.1f} MB"
    )
    if peak.size_bytes + weights > LARGE_BYTES:
        return [
            warning(
                MEMORY,
                what,
                "a phone with 4 GB of memory ends apps that take a third of it",
                "convert for shorter inputs, to int8, or with --attention chunked",
            )
        ]
    return [info(MEMORY, what, "a runtime that packs weights for its kernels holds them a second time")]


# Check: weights lie in their files where memory-mapped reading wants them.


PLACEMENT = "alignment"


def check_placement(examination: Examination) -> Iterable[Finding]:
    """Offsets that are no multiple of what the format asks for."""
    placements = examination.view.placements
    wrong = [each for each in placements if each.offset % each.alignment]
    if wrong:
        first = wrong[0]
        return [
            warning(
                PLACEMENT,
                f"{len(wrong)} of {len(placements)} weights are not aligned: {first.file}: {first.what} at byte"
                f" {first.offset}, no multiple of {first.alignment}",
                "a runtime that maps the file into memory copies such weights, or reads them slowly or not at all",
                "convert the checkpoint again; tools that rewrite model files often lose the alignment",
            )
        ]
    if not placements:
        return [fine(PLACEMENT, "the weights are inside the graph: a runtime copies them and asks for no alignment")]
    return [fine(PLACEMENT, f"{len(placements)} places of weights, all aligned for memory mapping")]


# Check: the oldest iOS and Android that the app supports run the bundle.


SYSTEMS = "systems"


def check_systems(examination: Examination) -> Iterable[Finding]:
    """`--min-ios` and `--min-android-api` against what the manifest requires."""
    options, manifest = examination.options, examination.bundle.manifest
    wanted = {
        "iOS": (options.min_ios, manifest.requires.ios),
        "Android API": (
            None if options.min_android_api is None else str(options.min_android_api),
            None if manifest.requires.android_api is None else str(manifest.requires.android_api),
        ),
    }
    for system, (minimum, required) in wanted.items():
        if minimum is None:
            continue
        if required is None:
            yield error(
                SYSTEMS,
                f"a bundle for {manifest.target} does not run on {system.split()[0]}",
                "the app could not open it on any such device",
                "convert the checkpoint for another target as well, and ship that bundle there",
            )
        elif older(parse_version(minimum, system), parse_version(required, system)):
            yield error(
                SYSTEMS,
                f"the bundle needs {system} {required}, the app supports {system} {minimum}",
                "on older devices the app cannot open it",
                f"raise the app's minimum to {system} {required}, or convert for a target that runs on {minimum}",
            )
        else:
            yield fine(SYSTEMS, f"runs on {system} {minimum}")


# Check: no weight is NaN or infinite.


WEIGHTS = "weights"


def check_weights(examination: Examination) -> Iterable[Finding]:
    """Constants of floating-point types with NaN in them; infinities of masks are the mask check's."""
    checked = 0
    for program in examination.view.programs:
        for value in program.constants():
            if not value.is_float:
                continue
            checked += 1
            if _is_corrupted(value):
                return [
                    error(
                        WEIGHTS,
                        f"{program.name}: the weight {value.label} {value.shape} holds NaN",
                        "every answer that it takes part in is NaN",
                        "repair the checkpoint and convert it again",
                    )
                ]
    return [fine(WEIGHTS, f"none of {checked} floating-point constants holds NaN")]


def _is_corrupted(value: Value) -> bool:
    assert value.constant is not None
    numbers = value.constant()
    return numbers.dtype.kind == "f" and bool(np.isnan(numbers).any())


# Checks native libraries for Android devices with memory pages of 16 KB.
#
# Android 15 runs on such devices, and there the loader refuses a library whose segments are aligned to less
# (developer.android.com, "Support 16 KB page sizes").


CHECK = "16 KB pages"
PAGE_BYTES = 16384
ARCHIVES = (".apk", ".aar", ".aab")
LIBRARY = ".so"
WHY = "a device with 16 KB pages cannot load it, and the app ends when it tries; app stores refuse such an app"

# The ELF header (System V ABI, chapter 4): class and byte order, then where the program headers are.
_MAGIC = b"\x7fELF"
_BITS_64 = 2
_HEADER = struct.Struct("<16x2HI3QI6H")
_SEGMENT = struct.Struct("<2I6Q")
_LOAD = 1
_MAX_SEGMENTS = 512
_LOCAL_HEADER = struct.Struct("<26x2H")


@dataclass(frozen=True)
class Library:
    """A native library as it lies in a file.

    Attributes:
        name: its name, in an archive with folders.
        alignment: the smallest alignment of a loaded segment in bytes; None: it has 32 bits, whose devices have small
            pages.
        offset: where it starts in an APK that maps it from there; None: it is a file of its own, or is unpacked.
    """

    name: str
    alignment: int | None
    offset: int | None = None


def is_native(path: Path) -> bool:
    """Whether a path is something with native libraries rather than a bundle."""
    return path.suffix in (*ARCHIVES, LIBRARY)


def examine_libraries(path: Path) -> list[Finding]:
    """Findings on a library, or on those of an Android archive.

    Raises:
        InputError: no such file, or it is no library or archive.
    """
    if not path.is_file():
        raise InputError(f"no file at {path}: expected a library, an APK, an AAR or a bundle")
    libraries = list(_in_archive(path) if path.suffix in ARCHIVES else _alone(path))
    if not libraries:
        return [info(CHECK, f"{path.name} holds no native library")]
    found = [finding for library in libraries for finding in _findings(library)]
    wide = sum(library.alignment is not None for library in libraries)
    return found or [fine(CHECK, f"{wide} of {len(libraries)} libraries have 64 bits, all aligned to 16 KB")]


def _findings(library: Library) -> Iterator[Finding]:
    if library.alignment is None:
        return
    if library.alignment % PAGE_BYTES:
        yield error(
            CHECK,
            f"{library.name} is aligned to pages of {library.alignment // 1024} KB",
            WHY,
            "take a newer release of it, or link it with -Wl,-z,max-page-size=16384 (NDK r28 does so by itself)",
        )
    if library.offset is not None and library.offset % PAGE_BYTES:
        yield error(
            CHECK,
            f"{library.name} lies uncompressed at byte {library.offset} of the archive, no multiple of 16384",
            WHY,
            "align the archive with zipalign -P 16 before it is signed",
        )


def _alone(path: Path) -> Iterator[Library]:
    with path.open("rb") as file:
        yield Library(path.name, _alignment(file, path.name))


def _in_archive(path: Path) -> Iterator[Library]:
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as raw:
            for member in archive.infolist():
                if not member.filename.endswith(LIBRARY):
                    continue
                with archive.open(member) as file:
                    alignment = _alignment(file, member.filename)
                # Only the loader of an APK maps libraries where they lie.
                mapped = path.suffix == ".apk" and member.compress_type == zipfile.ZIP_STORED
                yield Library(member.filename, alignment, _data_offset(raw, member) if mapped else None)
    except (zipfile.BadZipFile, struct.error, NotImplementedError) as error:
        raise InputError(f"{path}: no archive that can be read: {error}") from None


def _data_offset(raw: IO[bytes], member: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: behind its local header, whose name and extra field have lengths of their own."""
    raw.seek(member.header_offset)
    name_bytes, extra_bytes = _LOCAL_HEADER.unpack(raw.read(_LOCAL_HEADER.size))
    return member.header_offset + _LOCAL_HEADER.size + int(name_bytes) + int(extra_bytes)


def _alignment(file: IO[bytes], name: str) -> int | None:
    """The smallest alignment of the segments that are loaded."""
    try:
        header = file.read(_HEADER.size)
        if not header.startswith(_MAGIC):
            raise InputError(f"{name} is no ELF library: expected it to begin with {_MAGIC!r}")
        if header[4] != _BITS_64:
            return None
        _, _, _, _, offset, _, _, _, size, count, *_ = _HEADER.unpack(header)
        if size != _SEGMENT.size or count > _MAX_SEGMENTS:
            raise InputError(f"{name}: {count} program headers of {size} bytes: expected them of {_SEGMENT.size} bytes")
        file.seek(offset)
        segments = list(_SEGMENT.iter_unpack(file.read(size * count)))
    except struct.error:
        raise InputError(f"{name}: the ELF header is cut off") from None
    return min((int(segment[-1]) for segment in segments if segment[0] == _LOAD), default=PAGE_BYTES)
