"""The report page in a real browser: no errors, controls that work, and a phone's width."""

import contextlib
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from teach_detr.report import write_report

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60
SHOWN = "document.querySelectorAll('.box:not(.off)').length"


class Browser:
    """Headless Chromium on its debugging pipe: JSON messages ended by a zero byte, no port."""

    def __init__(self, binary: str, profile: Path) -> None:
        # the browser reads from its file 3 and writes to its file 4
        browser_reads, self._to = os.pipe()
        self._from, browser_writes = os.pipe()
        script = f'exec "$0" "$@" 3<&{browser_reads} 4>&{browser_writes}'
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")
        self._process = subprocess.Popen(
            ["bash", "-c", script, binary, *flags, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(browser_reads, browser_writes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(browser_reads)
        os.close(browser_writes)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Runtime", "Log", "Page", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], SECONDS)
            assert ready, f"the browser is silent for {SECONDS} s"
            more = os.read(self._from, 1 << 16)
            assert more, "the browser ended"
            self._buffer += more
        raw, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(raw)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, page: Path, width: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next()

    def value(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str, code: int) -> None:
        text = {"text": " "} if key == " " else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text
            )

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, exceptions, and requests that leave the page."""
        found = []
        for event in self.events:
            method, details = event["method"], event["params"]
            if method == "Runtime.exceptionThrown" or method == "Runtime.consoleAPICalled":
                found.append(json.dumps(details)[:300])
            elif method == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
                found.append(details["entry"]["text"])
            elif method == "Network.requestWillBeSent":
                url = details["request"]["url"]
                if not url.startswith(("file:", "data:")):
                    found.append(url)
        return found

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._session = None
            self.call("Browser.close")
        os.close(self._to)
        os.close(self._from)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    binary = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if binary is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is on PATH")
    browser = Browser(binary, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(small_store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The six images of the small store: 6 objects, 6 boxes of `oracle`, 3 of `half`."""
    root = tmp_path_factory.mktemp("page")
    pixels = np.random.default_rng(0).integers(0, 255, (80, 100, 3), np.uint8)
    for i in range(1, 7):
        Image.fromarray(pixels).save(root / f"{i}.jpg")
    out = root / "report.html"
    write_report(small_store.path, out, annotations=small_store.annotations, images=root)
    return out


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_it_opens_without_a_complaint_and_never_scrolls_sideways(
    browser: Browser, page: Path, width: int
) -> None:
    browser.open(page, width)
    assert browser.value("document.documentElement.scrollWidth") <= width
    # folded parts too
    browser.value("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.querySelectorAll('img').length") >= 6
    assert browser.value("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert browser.complaints() == []


def test_boxes_are_toggled_by_teacher_class_and_score(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    assert browser.value(SHOWN) == 15
    browser.value("document.querySelectorAll('input[name=set]')[2].click()")
    assert browser.value(SHOWN) == 9
    assert browser.value("document.getElementById('shown').textContent") == "9 of 15 boxes shown"
    browser.value("document.querySelectorAll('input[name=set]')[2].click()")
    browser.value("document.querySelector('input[name=class][value=\"3\"]').click()")
    assert browser.value(SHOWN) == 9
    browser.value("document.getElementById('no-classes').click()")
    assert browser.value(SHOWN) == 0
    browser.value("document.getElementById('all-classes').click()")
    # annotations have no score: the slider leaves them
    browser.value(
        "(() => { const s = document.getElementById('score'); s.value = 0.8;"
        "s.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )
    assert browser.value(SHOWN) == 6
    assert browser.complaints() == []


def test_boxes_lie_where_the_store_says(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    placed = browser.value(
        "(() => { const f = document.querySelector('figure[data-image]');"
        "const i = f.querySelector('img').getBoundingClientRect();"
        "const b = f.querySelector('.line').getBoundingClientRect();"
        "return [(b.left - i.left) / i.width, (b.top - i.top) / i.height, b.height / i.height];"
        "})()"
    )
    np.testing.assert_allclose(placed, [10 / 100, 10 / 80, 40 / 80], atol=0.02)


def test_it_works_by_keyboard_with_a_visible_focus(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    browser.press("Tab", 9)
    assert browser.value("document.activeElement.className") == "skip"
    browser.value("document.querySelector('input[name=set]').focus()")
    browser.press(" ", 32)
    assert browser.value("document.querySelector('input[name=set]').checked") is False
    assert browser.value(SHOWN) == 9
    assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.value("document.querySelector('.enlarge').focus()")
    browser.press(" ", 32)
    assert (
        browser.value("document.querySelector('.enlarge').getAttribute('aria-pressed')") == "true"
    )
    assert browser.value("document.querySelectorAll('figure.wide').length") == 1


def test_text_has_contrast_in_both_themes(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    papers = []
    for theme in ("light", "dark"):
        browser.value(
            f"(() => {{ const t = document.getElementById('theme'); t.value = '{theme}';"
            "t.dispatchEvent(new Event('change')); })()"
        )
        paper = _luminance(browser.value("getComputedStyle(document.body).backgroundColor"))
        papers.append(paper)
        for selector, least in (("main", 7), (".note", 4.5), ("nav a", 4.5), (".dot.k0", 3)):
            ink = _luminance(
                browser.value(f"getComputedStyle(document.querySelector('{selector}')).color")
            )
            high, low = max(ink, paper), min(ink, paper)
            assert (high + 0.05) / (low + 0.05) >= least, (theme, selector)
    assert papers[0] > 0.9 > 0.1 > papers[1]


def test_the_policy_keeps_foreign_scripts_from_running(browser: Browser, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    other = page.with_name("other.html")
    other.write_text(text.replace("<main", "<script>window.ran = true</script><main"), "utf-8")
    browser.open(other, 1280)
    assert browser.value("window.ran === undefined")
    assert any("Content Security Policy" in text for text in browser.complaints())


def _luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)` (WCAG 2.2), 0..1."""
    channels = np.array([float(v) for v in colour[colour.index("(") + 1 : -1].split(",")[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
