"""The page in a real browser: Chromium types, drops a photo, and speaks into a microphone that beeps."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from process import NOISE, Served, running, serving

sync_api = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.slow

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
WAIT_MS = 20_000

Visit = Callable[[Served], "sync_api.Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: expected one of {', '.join(BROWSERS)} (make browser installs one on Debian)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: sync_api.Browser) -> Iterator[Visit]:
    """Opens a service's page. At the end, nothing came from elsewhere, and the browser had nothing to complain of."""
    complaints: list[str] = []
    addresses: list[str] = []
    served_at: list[str] = []
    with ExitStack() as stack:

        def open_page(served: Served) -> sync_api.Page:
            context = browser.new_context(permissions=["microphone"])
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(WAIT_MS)
            page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda request: addresses.append(request.url))
            served_at.append(served.url)
            page.goto(served.url)
            return page

        yield open_page
    assert addresses
    assert [url for url in addresses if not url.startswith((*served_at, "blob:"))] == []
    assert [text for text in complaints if "status of 422" not in text] == []


def labels_of(page: sync_api.Page) -> list[str]:
    page.get_by_role("rowheader").first.wait_for()
    return page.get_by_role("rowheader").all_inner_texts()


def test_typing(visit: Visit, tiny_onnx: Path) -> None:
    with serving(tiny_onnx) as served:
        page = visit(served)
        page.get_by_role("heading", name="tiny").wait_for()
        assert page.title() == "tiny: EdgeFormer"
        assert page.locator("#about").inner_text() == "text-classification, onnx fp32, on this machine."
        page.get_by_label("Text", exact=True).fill("hello")
        page.keyboard.press("Enter")
        shown = labels_of(page)
        asked = page.request.post(f"{served.url}/v1/answer", data={"text": "hello"}).json()
        assert shown == asked["labels"]
        scores = [float(text) for text in page.locator("#labels tbody td:last-child").all_inner_texts()]
        assert scores == pytest.approx(asked["scores"], abs=1e-4)
        bars = page.get_by_role("progressbar").all()
        assert bars[0].get_attribute("aria-label") == f"{shown[0]}: {100 * asked['scores'][0]:.1f} percent"
        assert "Answered by the device" in page.get_by_role("status").inner_text()
        # A second text makes a pair, whose answer is another.
        page.get_by_label("Second text").fill("turn the lights on")
        page.get_by_role("button", name="Answer").click()
        pair = page.request.post(f"{served.url}/v1/answer", data={"text": "hello", "pair": "turn the lights on"}).json()
        page.get_by_text(f"{pair['scores'][0]:.4f}").wait_for()
        assert labels_of(page) == pair["labels"]


def test_a_photo(visit: Visit, tiny_image_onnx: Path) -> None:
    photo = tiny_image_onnx / "vectors" / "ramp.png"
    with serving(tiny_image_onnx) as served:
        page = visit(served)
        page.get_by_label("Photo", exact=True).set_input_files(photo)
        expected = page.request.post(
            f"{served.url}/v1/answer", data=photo.read_bytes(), headers={"Content-Type": "image/png"}
        ).json()
        assert labels_of(page) == expected["labels"]
        assert page.get_by_alt_text("The photo that was chosen").evaluate("image => image.naturalWidth") == 50
        # Another one is dropped, and one that is none.
        noise = base64.b64encode((tiny_image_onnx / "vectors" / "noise.png").read_bytes()).decode()
        page.evaluate(DROP, noise)
        sync_api.expect(page.locator("#preview")).to_have_js_property("naturalWidth", 40)
        page.get_by_role("rowheader").first.wait_for()
        page.evaluate(DROP, base64.b64encode(b"no image").decode())
        page.get_by_text("422: ").wait_for()
        assert "is not an image" in page.get_by_role("alert").inner_text()
        assert page.get_by_role("rowheader").count() == 0


DROP = """data => {
  const files = new DataTransfer();
  files.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], "photo.png", {type: "image/png"}));
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", {dataTransfer: files, bubbles: true}));
}"""


def test_speaking(visit: Visit, tiny_speech: Path) -> None:
    with running([*NOISE, str(tiny_speech)]) as served:
        page = visit(served)
        record = page.get_by_role("button", name="Record")
        record.click()
        stop = page.get_by_role("button", name="Stop")
        stop.wait_for()
        assert stop.get_attribute("aria-pressed") == "true"
        page.locator("#final, #partial").filter(has_text=re.compile(r"\S")).first.wait_for()
        stop.click()
        page.get_by_text("s of audio.").wait_for()
        assert page.locator("#final").inner_text()
        assert page.locator("#partial").inner_text() == ""
        assert float(page.locator("#cost").inner_text().split()[0]) > 0
        record.wait_for()
        # A file of the same bundle.
        page.get_by_label("Audio: wav, flac, ogg or mp3").set_input_files(tiny_speech / "vectors" / "audio.wav")
        page.get_by_text("Answered by the device").wait_for()
        assert page.locator("#final").inner_text()


def test_a_service_that_has_gone(browser: sync_api.Browser, tiny_onnx: Path) -> None:
    with serving(tiny_onnx) as served:
        page = browser.new_page()
        page.goto(served.url)
        page.get_by_label("Text", exact=True).fill("hello")
        assert served.end() == 0
        page.get_by_role("button", name="Answer").click()
        page.get_by_text("The service does not answer").wait_for(timeout=WAIT_MS)
        page.close()
