"""Every relative link, anchor and file that a document names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.documents import REPOSITORY, documents, files, prose, shown, spans

# From where documents name files: the repository's root, and the folders that a page is about.
BASES = (
    *(
        "",
        "docs",
        "edgeformer",
        "edgeformer/models",
        "converters/edgeformer_converters",
        "runtime",
        "runtime/edgeformer_runtime",
    ),
    *("android_demo", "ios_demo", "ios_demo/App", "tests", "tests/runtime", "tests/runtime/model_files"),
    "ios_demo/Sources/EdgeCore",
)
SUFFIXES = (".py", ".md", ".toml", ".cpp", ".kt", ".kts", ".swift", ".html", ".png", ".xcodeproj", ".schema.json")
# Files that a user's own folders hold, or that a command writes.
MADE = re.compile(r"^(dist|build|~|vectors|assets)/|^/|^\.|[<>{}$ ]|NAME|\.\.\.")

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(file: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = _HEADING.findall(prose(file.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def missing_links(document: Path) -> list[str]:
    missing = []
    for link in _LINK.findall(prose(document.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(link)
    return missing


def missing_files(document: Path) -> list[str]:
    named = {name.rstrip(".,;:") for name in spans(document.read_text(encoding="utf-8"))}
    paths = {name for name in named if name.endswith((".py", "/")) or ("/" in name and name.endswith(SUFFIXES))}
    return sorted(name for name in paths if not MADE.search(name) and not _exists(name, document))


def _exists(name: str, document: Path) -> bool:
    if "/" not in name:
        return any(path.name == name for path in files(".py"))
    roots = (document.parent, *(REPOSITORY / base for base in BASES))
    return any(True for root in roots for _ in root.glob(name.rstrip("/")))


@pytest.mark.parametrize("document", documents(), ids=shown)
def test_links_lead_somewhere(document: Path) -> None:
    assert missing_links(document) == []


@pytest.mark.parametrize("document", documents(), ids=shown)
def test_named_files_exist(document: Path) -> None:
    assert missing_files(document) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One heading\n[a](#one-heading) [b](#another) [c](none.md) `edgeformer/none.py` `edgeformer/cli.py`\n"
    )
    assert missing_links(page) == ["#another", "none.md"]
    assert missing_files(page) == ["edgeformer/none.py"]


def test_every_document_is_in_the_index() -> None:
    """docs/index.md leads to each page of docs/, and the README to the index."""
    index = (REPOSITORY / "docs" / "index.md").read_text(encoding="utf-8")
    linked = {link.partition("#")[0] for link in _LINK.findall(index)}
    pages = {path.name for path in (REPOSITORY / "docs").glob("*.md")} - {"index.md"}
    assert pages <= linked, pages - linked
    assert "docs/index.md" in _LINK.findall((REPOSITORY / "README.md").read_text(encoding="utf-8"))
