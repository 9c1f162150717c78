"""The report in a browser, as its readers have it: a headless Chromium looks at pages that were written to files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpluld.structures import RECIST, CTVolume, Finding
from mmpluld.visualization import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path (chromium, google-chrome)")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SPACING = (5.0, 1.0, 1.0)  # thick slices
NAME = "</script><script>throw 1</script>'\"\u2028"


@pytest.fixture(scope="module")
def scan() -> CTVolume:
    """Forty slices, stored against k; slice z of soft tissue has 10 + 4 z HU, and a bright lesion."""
    array = np.full((40, 160, 200), -1000, dtype=np.int16)
    array[:, 20:140, 20:180] = (10 + 4 * np.arange(40))[:, None, None]
    array[18:22, 60:80, 100:130] = 230
    affine = np.diag([*SPACING[::-1], 1.0])
    return CTVolume.from_file_array(array.transpose(2, 1, 0)[:, :, ::-1].copy(), affine, f"{NAME.replace('/', '')}.nii")


@pytest.fixture(scope="module")
def pages(scan: CTVolume, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Written pages with no finding, three, and three hundred."""
    folder = tmp_path_factory.mktemp("reports")
    recist = RECIST(30.0, 20.0, (100, 70, 130, 70, 115, 60, 115, 80))
    few = [
        Finding.from_canonical(scan, [100, 60, 18, 130, 80, 22], 0.5, 20, [100, 60, 130, 80], recist, ((NAME, 0.9),)),
        Finding.from_canonical(scan, [60, 90, 5, 80, 100, 9], 0.9, 7, [60, 90, 80, 100]),
        Finding.from_canonical(scan, [90, 50, 19, 99, 60, 22], 0.7, 19, [90, 50, 99, 60]),
    ]
    generator = np.random.default_rng(0)
    many = []
    for score in np.linspace(0.99, 0.3, 300):
        x, y, z = generator.uniform((20, 20, 0), (170, 130, 36))
        box = [x, y, int(z), x + 10, y + 10, int(z) + 3]
        many.append(Finding.from_canonical(scan, box, score, int(z) + 1, [x, y, x + 10, y + 10]))
    paths = {name: folder / f"{name}.html" for name in ("none", "few", "many")}
    for path, findings in zip(paths.values(), ([], few, many), strict=True):
        write_report(path, scan, findings, {"Model": NAME})
    return paths


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, pages: dict[str, Path]) -> Iterator[Callable[..., Any]]:
    """Function that opens a page; at the end no script may have failed, and nothing may have been asked for."""
    contexts, faults = [], []

    def open_page(name: str, width: int = 1280, height: int = 900, hash: str = "", **options: Any) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: message.type != "error" or faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or faults.append(request.url))
        page.goto(pages[name].as_uri() + hash)
        if name != "none" and options.get("java_script_enabled", True):
            loaded(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


def loaded(page: Any) -> None:
    """Wait until all planes are drawn."""
    page.evaluate(  # the page's policy forbids wait_for_function
        """async () => {
          const end = Date.now() + 30000;
          do await new Promise((done) => requestAnimationFrame(done));
          while ((document.querySelector(".loading") || !document.querySelector(".over *")) && Date.now() < end);
        }"""
    )
    settle(page)


def settle(page: Any) -> None:
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def where(page: Any, plane: str = "axial") -> str:
    return page.inner_text(f"[data-plane={plane}] .where")


def grey(page: Any, x: float, y: float, plane: str = "axial") -> int:
    """Grey value on a canvas at a share of its width and height."""
    return page.evaluate(
        """([plane, x, y]) => {
          const canvas = document.querySelector(`[data-plane=${plane}] canvas`);
          return canvas.getContext("2d").getImageData(x * canvas.width, y * canvas.height, 1, 1).data[0];
        }""",
        [plane, x, y],
    )


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)
    settle(page)


def wheel(page: Any, plane: str, steps: int) -> None:
    page.hover(f"[data-plane={plane}] .stage")
    for _ in range(abs(steps)):
        page.mouse.wheel(0, 120 if steps > 0 else -120)
        settle(page)
    settle(page)


def first_column(page: Any) -> list[int]:
    return [int(text) for text in page.locator("#findings tbody th").all_inner_texts()]


def grey_of(hu: float, low: float, high: float) -> float:
    return (hu - low) / (high - low) * 255


def test_slices_scroll_and_hu_are_shown_as_they_are(visit: Callable[..., Any]) -> None:
    page = visit("few")
    assert page.inner_text("#viewer-title") == "Finding 1 of 3"
    assert where(page) == "k = 19, key slice"  # canonical slice 20 of 40, stored against k
    assert grey(page, 0.5, 0.5) == pytest.approx(grey_of(230, -160, 240), abs=6)
    assert grey(page, 0.1, 0.8) == pytest.approx(grey_of(10 + 4 * 20, -160, 240), abs=6)
    wheel(page, "axial", 3)
    assert where(page) == "k = 16"
    assert grey(page, 0.5, 0.5) == pytest.approx(grey_of(10 + 4 * 23, -160, 240), abs=6)
    wheel(page, "axial", -2)
    assert where(page) == "k = 18, in the finding"
    wheel(page, "coronal", 2)
    assert where(page, "coronal") == "j = 72, in the finding"
    page.focus("[data-plane=axial] input")
    press(page, "ArrowUp", "0")
    assert where(page) == "k = 19, key slice"
    press(page, "ArrowDown", "ArrowDown", "PageDown")
    assert where(page) == "k = 12"
    press(page, "End")
    last = where(page)
    press(page, "ArrowDown")
    assert where(page) == last
    assert page.get_attribute("[data-plane=axial] input", "aria-valuetext") == last
    assert last in page.get_attribute("[data-plane=axial] canvas", "aria-label")


def test_windows_change_pixels(visit: Callable[..., Any]) -> None:
    page = visit("few")
    soft = 10 + 4 * 20
    for key, (low, high) in {"2": (-1350, 150), "3": (-500, 1300), "4": (-20, 140), "1": (-160, 240)}.items():
        press(page, key)
        assert grey(page, 0.1, 0.8) == pytest.approx(grey_of(soft, low, high), abs=8)
        assert page.inner_text("#window-text") == f"{low} to {high} HU"
        assert page.get_attribute(f"[data-window='{int(key) - 1}']", "aria-pressed") == "true"
    assert grey(page, 0.3, 0.2, "whole") == pytest.approx(grey_of(soft, -160, 240), abs=8)
    page.click("text=Bone")
    settle(page)
    assert grey(page, 0.1, 0.8) == pytest.approx(grey_of(soft, -500, 1300), abs=8)
    area = page.locator("[data-plane=axial] .stage").bounding_box()
    page.mouse.move(area["x"] + 100, area["y"] + 100)
    page.mouse.down()
    page.mouse.move(area["x"] + 150, area["y"] + 100, steps=3)
    page.mouse.up()
    settle(page)
    assert page.inner_text("#window-text") == "-550 to 1350 HU"
    assert page.locator("[data-window][aria-pressed=true]").count() == 0


def test_planes_have_the_right_aspect_and_boxes_lie_on_the_lesion(visit: Callable[..., Any]) -> None:
    page = visit("few")
    for plane, box in {"axial": (100, 60, 30, 20), "coronal": (100, 90, 30, 20), "sagittal": (60, 90, 20, 20)}.items():
        rect = page.locator(f"[data-plane={plane}] .mark:not(.other) rect")
        assert tuple(float(rect.get_attribute(name)) for name in ("x", "y", "width", "height")) == box
        drawn, stage = rect.bounding_box(), page.locator(f"[data-plane={plane}] .stage").bounding_box()
        assert drawn["width"] / drawn["height"] == pytest.approx(box[2] / box[3], rel=0.03)
        middle = [(drawn[a] + drawn[s] / 2 - stage[a]) / stage[s] for a, s in (("x", "width"), ("y", "height"))]
        assert grey(page, *middle, plane) == pytest.approx(grey_of(230, -160, 240), abs=8)
        assert grey(page, 0.05, middle[1], plane) < 200  # beside the lesion
    assert page.locator("[data-plane=axial] .diameter").count() == 2
    press(page, "d")
    assert page.locator("[data-plane=axial] .diameter").count() == 0
    assert page.locator("[data-plane=axial] .mark.other").count() == 1
    press(page, "b")
    assert page.locator(".panel .mark").count() == 0
    others = page.locator("#others")
    assert others.get_attribute("aria-pressed") == "false" and others.is_disabled()  # they are boxes, too
    press(page, "o", "b")
    assert page.locator("[data-plane=axial] .mark.other").count() == 1
    assert others.get_attribute("aria-pressed") == "true" and others.is_enabled()
    press(page, "o")
    assert page.locator(".panel .mark").count() == 4
    press(page, "b")
    assert page.locator(".panel .mark").count() == 0
    press(page, "b", "c")
    assert page.locator(".panel .mark").count() == page.locator(".panel .cut").count() == 4
    page.locator("[data-plane=axial] .stage").click(position={"x": 5, "y": 5})
    settle(page)
    assert where(page, "coronal") != "j = 70, in the finding"
    assert page.text_content("[data-plane=coronal] .scale text") == "20 mm"
    assert page.locator("[data-plane=sagittal] .letter text").all_text_contents() == ["A", "P", "S", "I"]


def test_table_sorts_and_findings_are_chosen(visit: Callable[..., Any]) -> None:
    page = visit("few")
    assert first_column(page) == [1, 2, 3]
    page.click("#findings th button:has-text('Score')")
    assert first_column(page) == [2, 3, 1]
    assert page.get_attribute("#findings th:nth-child(2)", "aria-sort") == "descending"
    page.click("#findings th button:has-text('Score')")
    assert first_column(page) == [1, 3, 2]
    page.click("#findings th button:has-text('Long')")
    assert first_column(page)[0] == 1  # those without come last
    press(page, "n")
    assert page.inner_text("#viewer-title") == "Finding 2 of 3"
    page.click("#findings tr[data-rank='3'] td:nth-child(2)")
    loaded(page)
    assert page.inner_text("#viewer-title") == "Finding 3 of 3"
    assert where(page) == "k = 20, key slice"
    page.locator("#overview .mark[data-rank='2'] rect").first.click()
    assert page.inner_text("#viewer-title") == "Finding 2 of 3"
    assert page.locator("#findings tr.chosen").get_attribute("data-rank") == "2"
    press(page, "?")
    assert page.locator("#help").is_visible()
    page.uncheck("#shortcuts")
    press(page, "Escape", "n")
    assert not page.locator("#help").is_visible()
    assert page.inner_text("#viewer-title") == "Finding 2 of 3"  # keys are off
    assert NAME in page.get_attribute("#findings tr[data-rank='1']", "data-facts")


def test_phone(visit: Callable[..., Any]) -> None:
    page = visit("many", 360, 740, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("[data-plane=axial] .stage").scroll_into_view_if_needed()
    before = where(page)
    area = page.locator("[data-plane=axial] .stage").bounding_box()
    touch = page.context.new_cdp_session(page)
    for kind, x in (("touchStart", 100), ("touchMove", 120), ("touchMove", 145), ("touchEnd", None)):
        points = [] if x is None else [{"x": area["x"] + x, "y": area["y"] + 100}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    settle(page)
    assert where(page) != before


def test_three_hundred_findings(visit: Callable[..., Any], pages: dict[str, Path]) -> None:
    assert pages["many"].stat().st_size < 2_500_000
    page = visit("many", hash="#finding-250")
    assert page.inner_text("#viewer-title") == "Finding 250 of 300"
    page.keyboard.press("n")
    loaded(page)
    assert page.inner_text("#viewer-title") == "Finding 251 of 300"
    assert "key slice" in where(page)
    assert page.locator("#findings tr.chosen").is_visible()
    for rooms in page.evaluate(
        """Array.from(document.querySelectorAll("#overview svg, .panel svg"), (svg) => Array.from(
          svg.querySelectorAll("text"), (text) => text.getBBox()).map((b) => [b.x, b.y, b.width, b.height]))"""
    ):
        boxes = [(x, y + 0.2 * h, x + w, y + 0.8 * h) for x, y, w, h in rooms]  # digits are lower than their line
        assert not any(
            a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for i, a in enumerate(boxes) for b in boxes[:i]
        )


def test_without_javascript_there_are_table_and_pictures(visit: Callable[..., Any]) -> None:
    page = visit("few", java_script_enabled=False)
    assert not page.locator("#viewer").is_visible()
    assert page.locator("#findings tbody tr").count() == 3
    picture = page.locator("#finding-1 .picture").first
    picture.scroll_into_view_if_needed()
    assert picture.is_visible()
    page.click("#findings a >> nth=1")
    assert page.url.endswith("#finding-2")


def test_no_finding(visit: Callable[..., Any]) -> None:
    page = visit("none", 360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("text=No findings.").is_visible()
    assert page.locator("script").count() == 0
    page.emulate_media(media="print")
    assert page.locator("#overview .picture").count() == 2
