"""The viewer and the pages of studies in a real browser: Chromium, without a graphics card."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pydicom
import pytest
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from pydicom import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from pacsteward.features.viewer.files import DIST
from pacsteward.hospital.examinations import objects
from tests.support.product import Product
from tests.support.samples import part10, pretend_orders

CHROMIUM = shutil.which("chromium") or ""
FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
]
FIRST_IMAGE_MS = 90_000

pytestmark = [
    pytest.mark.journey,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed"),
    pytest.mark.skipif(not (DIST / "index.html").is_file(), reason="the viewer was not prepared"),
]


@dataclass(frozen=True)
class Site:
    product: Product
    password: str
    studies: dict[str, Dataset]
    """One object of each study, by what is special about it."""

    def viewer(self, name: str) -> str:
        uid = self.studies[name].StudyInstanceUID
        return f"{self.product.url}/viewer/viewer?StudyInstanceUIDs={uid}"


def phantoms() -> dict[str, list[Dataset]]:
    """Make a CT as the hospital sends it, and the same compressed in two ways."""
    order = next(order for order in pretend_orders(studies=8) if order.modality == "CT")
    plain = list(objects(order))[:12]
    made = {"plain": plain}
    for name, syntax in (("jpeg-ls", JPEGLSLossless), ("jpeg-2000", JPEG2000Lossless)):
        made[name] = [recoded(data, name, syntax) for data in plain[:3]]
    return made


def recoded(data: Dataset, name: str, syntax: str) -> Dataset:
    copy = pydicom.dcmread(io.BytesIO(part10(data)))
    suffix = {"jpeg-ls": "1", "jpeg-2000": "2"}[name]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(copy, keyword, f"{getattr(data, keyword)[:60]}.{suffix}")
    copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
    copy.compress(syntax, generate_instance_uid=False)
    return copy


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    product = Product(tmp_path_factory.mktemp("viewer") / "archive").start()
    made = phantoms()
    with product.client() as client:
        for data in (data for group in made.values() for data in group):
            answer = client.post(
                "/dicom-web/studies",
                content=part10(data),
                headers={"content-type": "application/dicom"},
            )
            assert answer.status_code == 200, answer.text
    try:
        yield Site(product, product.password(), {name: group[0] for name, group in made.items()})
    finally:
        product.stop()


@dataclass
class Watch:
    """What went wrong on a page while it was looked at."""

    page: Page
    bad_answers: list[str]
    errors: list[str]
    outside: list[str]


@contextmanager
def browser_page(site: Site, *, signed_in: bool = True) -> Iterator[Watch]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        context = browser.new_context(viewport={"width": 1366, "height": 768})
        page = context.new_page()
        watch = Watch(page, [], [], [])
        page.on(
            "response",
            lambda answer: (
                watch.bad_answers.append(f"{answer.status} {answer.url}")
                if answer.status >= 400
                else None
            ),
        )
        page.on("pageerror", lambda error: watch.errors.append(str(error)))
        page.on(
            "console",
            lambda message: watch.errors.append(message.text) if message.type == "error" else None,
        )
        page.on(
            "request",
            lambda request: (
                watch.outside.append(request.url)
                if request.url.startswith("http") and not request.url.startswith(site.product.url)
                else None
            ),
        )
        if signed_in:
            sign_in(page, site)
        try:
            yield watch
        finally:
            browser.close()


def sign_in(page: Page, site: Site) -> None:
    if "/login" not in page.url:
        page.goto(f"{site.product.url}/login")
    page.fill("#username", "admin")
    page.fill("#password", site.password)
    page.click("button.primary")
    page.wait_for_url(lambda url: "/login" not in url)


def central_pixels(page: Page) -> np.ndarray:
    """Return the middle of the first viewport, grey, once something is drawn in it."""
    canvas = page.locator("canvas.cornerstone-canvas").first
    canvas.wait_for(timeout=FIRST_IMAGE_MS)
    pixels = np.zeros((1, 1))
    for _ in range(FIRST_IMAGE_MS // 500):
        shown = Image.open(io.BytesIO(canvas.screenshot())).convert("L")
        width, height = shown.size
        box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
        pixels = np.asarray(shown.crop(box))
        if len(np.unique(pixels)) > 30:
            break
        page.wait_for_timeout(500)
    return pixels


@pytest.mark.parametrize("name", ["plain", "jpeg-ls", "jpeg-2000"])
def test_a_study_is_drawn(site: Site, name: str) -> None:
    with browser_page(site) as watch:
        watch.page.goto(site.viewer(name))
        pixels = central_pixels(watch.page)
        # A wrong grey square has many lit pixels too; a picture has many values and contrast.
        assert len(np.unique(pixels)) > 30
        assert pixels.std() > 10
        watch.page.wait_for_timeout(2000)
        assert watch.bad_answers == []
        assert watch.outside == []
        assert [error for error in watch.errors if "favicon" not in error] == []


def test_the_study_list_of_the_viewer_shows_names_and_descriptions(site: Site) -> None:
    with browser_page(site) as watch:
        page = watch.page
        page.goto(f"{site.product.url}/viewer/")
        family = str(site.studies["plain"].PatientName).split("^")[0]
        page.get_by_text(family).first.wait_for(timeout=FIRST_IMAGE_MS)
        assert watch.bad_answers == []


def test_a_visitor_signs_in_first_and_lands_in_the_study(site: Site) -> None:
    with browser_page(site, signed_in=False) as watch:
        page = watch.page
        page.goto(site.viewer("plain"))
        assert "/login" in page.url
        sign_in(page, site)
        assert site.studies["plain"].StudyInstanceUID in page.url
        assert len(np.unique(central_pixels(page))) > 30


def test_an_ended_session_leads_to_sign_in_and_back(site: Site) -> None:
    with browser_page(site) as watch:
        page = watch.page
        page.goto(site.viewer("plain"))
        central_pixels(page)
        page.context.clear_cookies()
        page.reload()
        assert "/login" in page.url
        assert "StudyInstanceUIDs" in page.url


def test_the_viewer_is_not_for_everybody(site: Site) -> None:
    with site.product.client("auditor") as auditor:
        assert auditor.get("/viewer/").status_code == 403
    with site.product.stranger() as stranger:
        nobody = stranger.get("/viewer/")
    assert nobody.status_code in (302, 303, 307)
    assert nobody.headers["location"].startswith("/login")


def test_the_list_of_studies_searches_while_one_types_and_opens_by_keyboard(site: Site) -> None:
    with browser_page(site) as watch:
        page = watch.page
        page.goto(f"{site.product.url}/studies")
        rows = page.locator("table[data-rows] tbody tr")
        assert rows.count() == 3
        page.locator("#q").press_sequentially("nobody of that name")
        page.get_by_text("Nothing found").wait_for()
        assert "q=nobody" in page.url
        page.locator("#q").fill(str(site.studies["plain"].PatientID))
        expect(rows).to_have_count(3)
        page.locator("#q").press("Escape")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_url("**/studies/*")
        picture = page.locator("img.thumbnail").first
        picture.wait_for()
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("image => image.naturalWidth") > 0
        assert watch.bad_answers == []
        assert watch.errors == []


def test_a_header_is_shown_to_its_last_attribute(site: Site) -> None:
    data = site.studies["plain"]
    with browser_page(site) as watch:
        page = watch.page
        page.goto(f"{site.product.url}/studies/{data.StudyInstanceUID}")
        page.locator("a[data-open-row]").first.click()
        page.locator("a[data-open-row]").first.click()
        page.get_by_text("PatientName").wait_for()
        assert page.get_by_text("PixelData").count() == 1
        assert page.get_by_text(str(data.PatientID)).count() >= 1
        assert watch.bad_answers == []
