"""The web page in a real browser: bundles open, verify and answer as the recorded vectors and as here, offline too."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from tests.docs.documents import snippet
from web_demo.build import FOLDER, SITE, npm

sync_api = pytest.importorskip("playwright.sync_api")

pytestmark = [pytest.mark.slow]

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
WAIT_MS = 60_000
SENTENCE = "turn the lights off in the kitchen"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Static files, as any server gives them."""

    extensions_map: ClassVar = {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        "": "text/html",
    }

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a folder."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def site() -> Path:
    """What `make web` has built; CI must have it."""
    if not (SITE / "bundles" / "index.json").is_file():
        reason = "needs the page: make web"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return SITE


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: expected one of {', '.join(BROWSERS)} (make browser installs one on Debian)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: sync_api.Browser) -> Iterator[sync_api.Page]:
    """At the end, the page had nothing to complain of."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


def rows(page: sync_api.Page, table: str) -> list[list[str]]:
    """The cells of a table, once it has some."""
    page.locator(f"#{table} tr").first.wait_for()
    return [row.locator("td").all_inner_texts() for row in page.locator(f"#{table} tr").all()]


def open_bundle(page: sync_api.Page, name: str) -> None:
    """Choose a bundle of the list, and wait until it is open."""
    page.locator("#bundles option").first.wait_for(state="attached")
    page.locator("#bundles").select_option(label=name)
    page.locator("#about").filter(has_text=f"{name.split('.')[0]}: ").wait_for()
    page.locator("#status", has_text="Opening").wait_for(state="hidden")


@pytest.mark.parametrize("name", ["intents.litert.dynamic-int8", "intents.onnx.dynamic-int8"])
def test_text(site: Path, page: sync_api.Page, name: str) -> None:
    with serving(site) as address:
        page.goto(address)
        open_bundle(page, name)
        page.locator("#verify").click()
        assert rows(page, "report")[0] == ["Self-test", "passed"]
        page.get_by_label("Text", exact=True).fill(SENTENCE)
        page.keyboard.press("Enter")
        label, score = rows(page, "answer")[0]
    with load(site / "bundles" / f"{name}.zip") as model:
        here = model(SENTENCE)
    assert label == here.label
    assert float(score.removesuffix(" %")) == pytest.approx(100 * here.score, abs=2)


def test_photo(site: Path, page: sync_api.Page, tmp_path: Path) -> None:
    name = "things.litert.dynamic-int8"
    with Bundle.open(site / "bundles" / f"{name}.zip") as bundle:
        image = next(file for file in sorted(bundle.manifest.files) if file.endswith(".png"))
        photo = tmp_path / "photo.png"
        photo.write_bytes(bundle.read_bytes(image))
    with serving(site) as address:
        page.goto(address)
        open_bundle(page, name)
        page.locator("#verify").click()
        assert rows(page, "report")[0] == ["Self-test", "passed"]
        page.locator("#bench").click()
        page.locator("#report td", has_text=" ms").first.wait_for()
        page.locator("#photo").set_input_files(photo)
        label, score = rows(page, "answer")[0]
    with load(site / "bundles" / f"{name}.zip") as model:
        here = model(photo)
    assert label == here.label
    assert float(score.removesuffix(" %")) == pytest.approx(100 * here.score, abs=2)


def test_once_visited_it_works_offline(site: Path, page: sync_api.Page) -> None:
    with serving(site) as address:
        page.goto(address)
        page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        page.reload()  # from here on the worker sees what is fetched
        page.locator("#text").wait_for()
    page.reload()
    page.get_by_label("Text", exact=True).fill(SENTENCE)
    page.keyboard.press("Enter")
    assert rows(page, "answer")


def test_a_damaged_bundle_is_refused_in_one_line(site: Path, page: sync_api.Page, tmp_path: Path) -> None:
    name = "intents.litert.dynamic-int8.zip"
    data = bytearray((site / "bundles" / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "damaged.zip").write_bytes(data)
    with serving(site) as address:
        page.goto(address)
        page.locator("#text").wait_for()
        page.locator("#file").set_input_files(tmp_path / "damaged.zip")
        page.locator("#status", has_text="corrupted").wait_for()


def test_a_page_of_ones_own_has_an_answer_with_the_lines_of_the_readme(site: Path, page: sync_api.Page) -> None:
    consumer = FOLDER / "dist" / "consumer"  # below it lie the compiler, and the packages that ours asks for
    shutil.rmtree(consumer, ignore_errors=True)
    modules = consumer / "node_modules"
    modules.mkdir(parents=True)
    subprocess.run([*npm(), "pack", "--silent", "--pack-destination", str(consumer)], cwd=FOLDER, check=True)
    with tarfile.open(next(consumer.glob("*.tgz"))) as archive:
        archive.extractall(modules, filter="data")
    (modules / "package").rename(modules / "edgeformer")
    (consumer / "app.ts").write_text(f"{snippet('ts')}\ndocument.title = label;\n", encoding="utf-8")
    tools = FOLDER / "node_modules" / ".bin"
    strict = ["--noEmit", "--strict", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"]
    subprocess.run([tools / "tsc", *strict, "app.ts"], cwd=consumer, check=True)
    subprocess.run(
        [tools / "esbuild", "app.ts", "--bundle", "--format=esm", "--outfile=app.js"], cwd=consumer, check=True
    )
    (consumer / "index.html").write_text('<script type="module" src="app.js"></script>', encoding="utf-8")
    for name in ("litert", "bundles"):
        (consumer / name).symlink_to(site / name)
    with serving(consumer) as address:
        page.goto(address)
        page.wait_for_function("document.title")
        assert page.title() == "smart_home"
