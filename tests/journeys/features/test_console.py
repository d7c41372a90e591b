"""The console in a browser: pages are sound, fit every screen and are walked by keyboard.

Numbers F186 to F188 are those of the feature list.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import pydicom
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect, sync_playwright
from pydicom import Dataset
from pydicom.uid import ComprehensiveSRStorage

from pacsteward.features.viewer.files import DIST
from tests.support.dicomweb import Site
from tests.support.samples import part10, small

pytestmark = pytest.mark.journey

CHROMIUM = shutil.which("chromium") or ""


@dataclass
class Console:
    page: Page
    faults: list[str]
    url: str
    study: str
    conflict: int
    job: str

    @property
    def names(self) -> dict[str, object]:
        """What stands for what in the addresses of pages."""
        return {"study": self.study, "conflict": self.conflict, "job": self.job}

    def go(self, path: str) -> None:
        answer = self.page.goto(self.url + path)
        assert answer is not None
        assert answer.status == 200, path


def failed_job(site: Site) -> str:
    """Order what cannot be done, and return the job's number when it was given up."""
    peer = {"ae_title": "AWAY", "host": "127.0.0.1", "port": 9}
    assert site.http.post("/api/v1/peers", json=peer).status_code == 200
    order = site.http.post("/api/v1/studies/2.25.404/send", json={"destination": "AWAY"})
    job = str(order.json()["job_id"])
    await_state(site, job, "failed", attempts=1)
    return job


def await_state(site: Site, job: str, state: str, *, attempts: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        found = site.http.get(f"/api/v1/jobs/{job}").json()
        if (found["state"], found["attempts"]) == (state, attempts):
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


@pytest.fixture(scope="module")
def console(site: Site) -> Iterator[Console]:
    if not CHROMIUM:
        pytest.skip("chromium is not installed")
    (study,) = site.studies(PatientID="TWO")
    changed = small(68, 1, 1)
    for name, status in (("Before^All", 200), ("Else^Somebody", 202)):
        changed.PatientName = name
        assert site.stow(part10(changed)).status_code == status
    conflict = json.loads(site.product.run("archive", "conflicts", "--json"))[0]["conflict_key"]
    site.product.run("peers", "add", "CT1", "127.0.0.1", "104")
    job = failed_job(site)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda message: faults.append(message.text) if message.type == "error" else None,
        )
        page.on(
            "response",
            lambda answer: (
                faults.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None
            ),
        )
        page.goto(f"{site.product.url}/login")
        page.fill("#username", "admin")
        page.fill("#password", site.product.password())
        page.click("button.primary")
        page.wait_for_url(lambda url: "/login" not in url)
        uid = str(study["0020000D"]["Value"][0])
        yield Console(page, faults, site.product.url, uid, conflict, job)
        browser.close()


PAGES = (
    "/studies", "/studies/{study}", "/elsewhere", "/peers", "/peers/new", "/health", "/people",
    "/tokens", "/account", "/audit", "/attention", "/attention/conflicts/{conflict}",
    "/jobs?state=all", "/jobs/{job}",
)  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_f186_pages_are_sound_and_usable_by_everybody(console: Console, path: str) -> None:
    console.faults.clear()
    console.go(path.format(**console.names))
    console.page.wait_for_load_state("networkidle")
    assert console.page.title()
    assert console.page.locator("h1").count() == 1
    found = Axe().run(console.page).response["violations"]
    serious = [
        (one["id"], [node["target"] for node in one["nodes"]][:3])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []
    assert console.faults == []


@pytest.mark.parametrize("path", PAGES)
def test_f186_pages_fit_a_telephone_and_a_small_desktop(console: Console, path: str) -> None:
    page = console.page
    try:
        for width in (390, 1024, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            console.go(path.format(**console.names))
            assert page.evaluate("document.documentElement.scrollWidth") == width
    finally:
        page.set_viewport_size({"width": 1366, "height": 768})


TABLES = (
    "/attention", "/attention/conflicts/{conflict}", "/health", "/studies", "/studies/{study}",
    "/studies/{study}/series/{study}.1", "/studies/{study}/series/{study}.1/instances/{study}.1.1",
    "/peers", "/people", "/tokens", "/audit", "/jobs?state=all", "/jobs/{job}",
)  # fmt: skip


@pytest.mark.parametrize("path", TABLES)
def test_f186_no_table_is_slid_sideways_from_a_telephone_on(console: Console, path: str) -> None:
    page = console.page
    try:
        for width in (390, 768, 1024):
            page.set_viewport_size({"width": width, "height": 800})
            console.go(path.format(**console.names))
            hidden = page.evaluate(
                "[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth - e.clientWidth)"
            )
            assert hidden
            assert set(hidden) == {0}, width
            # Whatever is a word to be read has room for a word.
            narrow = page.evaluate(
                "[...document.querySelectorAll('td.wrap, th.wrap')].filter(e => e.clientWidth < 60"
                " && getComputedStyle(e).display === 'table-cell' && e.innerText).length"
            )
            assert narrow == 0, width
    finally:
        page.set_viewport_size({"width": 1366, "height": 768})


@pytest.mark.parametrize("path", ["/studies", "/peers", "/people"])
def test_f186_a_list_is_sorted_on_a_telephone_too(console: Console, path: str) -> None:
    """What the Tab key comes to has to be seen, and whoever has no keyboard sorts as well."""
    page = console.page
    try:
        page.set_viewport_size({"width": 390, "height": 800})
        console.go(path)
        link = page.locator("thead a").last
        link.focus()
        box = link.bounding_box()
        assert box is not None
        middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
        assert page.evaluate(
            "at => document.elementFromPoint(...at) === document.activeElement", middle
        )
        link.click()
        page.wait_for_url(lambda url: "sort=" in url)
    finally:
        page.set_viewport_size({"width": 1366, "height": 768})


def test_f186_a_conflict_is_opened_from_its_finding_by_the_keyboard(console: Console) -> None:
    page = console.page
    console.go("/health")
    page.get_by_role("link", name=re.compile("came under a UID that other content has")).click()
    expect(page.locator("#kind")).to_have_value("conflict")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(re.compile("Conflict"))
    row = page.locator(".sides-compared tr", has_text="PatientName")
    expect(row).to_contain_text("Else, Somebody")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the other one").click()
    file = pydicom.dcmread(download.value.path())
    assert file.PatientName == "Else^Somebody"


def test_f186_a_failed_job_is_found_and_tried_again_by_the_keyboard(
    console: Console, site: Site
) -> None:
    page = console.page
    console.go("/health")
    page.get_by_role("link", name=re.compile("Jobs were given up")).click()
    expect(page.locator("#state")).to_have_value("failed")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(f"Job {console.job}")
    page.get_by_role("button", name="Try again").press("Enter")
    expect(page.locator("main")).to_contain_text(f"Job {console.job} is tried again")
    await_state(site, console.job, "failed", attempts=2)


def test_f186_a_value_of_a_page_of_two_columns_has_the_whole_width_of_a_telephone(
    console: Console,
) -> None:
    page = console.page
    try:
        page.set_viewport_size({"width": 390, "height": 800})
        console.go(f"/jobs/{console.job}")
        widths = page.locator(".sides td").evaluate_all(
            "cells => cells.map(e => [e.offsetWidth, e.parentElement.clientWidth])"
        )
        assert widths
        assert all(cell == row for cell, row in widths), widths
    finally:
        page.set_viewport_size({"width": 1366, "height": 768})


def test_f186_the_button_of_the_viewer_is_on_a_small_desktop(console: Console) -> None:
    page = console.page
    try:
        page.set_viewport_size({"width": 1280, "height": 800})
        console.go("/studies")
        hidden = page.evaluate(
            "[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth - e.clientWidth)"
        )
        assert hidden == [0]
    finally:
        page.set_viewport_size({"width": 1366, "height": 768})


def test_f186_a_page_behind_the_last_leads_back_to_the_first(console: Console) -> None:
    page = console.page
    console.go("/studies?q=TWO&page=9")
    expect(page.locator("#list h2")).to_have_text("This page is empty")
    page.get_by_role("link", name="To the first page").click()
    expect(page).to_have_url(re.compile(r"/studies\?q=TWO"))
    expect(page.locator("#list tbody tr")).to_have_count(1)
    console.go("/jobs?state=failed&page=99")
    expect(page.get_by_role("heading", name="This page is empty")).to_have_count(1)
    page.get_by_role("link", name="To the first page").click()
    expect(page).to_have_url(re.compile(r"/jobs\?state=failed$"))
    expect(page.locator("table[data-rows] tbody tr")).not_to_have_count(0)


def test_f186_a_wrong_date_in_the_address_is_said_beside_the_filters(console: Console) -> None:
    page = console.page
    answer = page.goto(f"{console.url}/studies?q=TWO&since=2026-13-45")
    assert answer is not None
    assert answer.status == 400
    expect(page.get_by_role("alert")).to_contain_text("2026-13-45 is no study date")
    expect(page.locator("#q")).to_have_value("TWO")
    page.get_by_role("link", name="Clear").click()
    expect(page).to_have_url(re.compile("/studies$"))
    console.faults.clear()


def empty_report(study: int, series: int) -> Dataset:
    report = small(study, series, 1, PatientID="REPORT", Modality="SR")
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    del report.PixelData, report.Rows, report.Columns
    return report


def test_f186_a_report_is_read_in_the_console_and_leads_to_its_image(
    console: Console, site: Site
) -> None:
    image, report = small(71, 1, 1, PatientID="REPORT"), empty_report(71, 2)
    report.ContentSequence = [Dataset(), Dataset()]
    text, source = report.ContentSequence
    text.ValueType, text.TextValue = "TEXT", "A mass of 3 cm."
    source.ValueType, source.ReferencedSOPSequence = "IMAGE", [Dataset()]
    source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = image.SOPInstanceUID
    assert site.stow(part10(image), part10(report)).status_code == 200
    page = console.page
    console.go(f"/studies/{report.StudyInstanceUID}")
    # There is an image in it: the viewer has something to show.
    expect(page.get_by_text("This study holds no images.")).to_have_count(0)
    page.locator(f'a[data-open-row][href$="{report.SeriesInstanceUID}"]').click()
    page.locator("a[data-open-row]").click()
    expect(page.locator(".report")).to_contain_text("A mass of 3 cm.")
    page.locator(".report a").click()
    expect(page).to_have_url(re.compile(f"{image.SOPInstanceUID}$"))
    expect(page.locator(".report")).to_have_count(0)


def test_f186_a_report_says_of_each_reference_whether_it_is_here(
    console: Console, site: Site
) -> None:
    count = 300
    image, report = small(73, 1, 1, PatientID="REPORT"), empty_report(73, 2)
    report.ContentSequence = [Dataset() for _ in range(count)]
    for number, source in enumerate(report.ContentSequence):
        source.ValueType, source.ReferencedSOPSequence = "IMAGE", [Dataset()]
        source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = f"2.25.73.{number}"
    source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = image.SOPInstanceUID
    assert site.stow(part10(image), part10(report)).status_code == 200
    study, series, instance = (
        report.StudyInstanceUID,
        report.SeriesInstanceUID,
        report.SOPInstanceUID,
    )
    console.go(f"/studies/{study}/series/{series}/instances/{instance}")
    expect(console.page.locator(".report p")).to_have_count(count)
    expect(console.page.get_by_text("is not stored here")).to_have_count(count - 1)
    expect(console.page.locator(".report p").last.locator("a")).to_have_count(1)


def test_f186_a_study_without_images_says_what_the_viewer_makes_of_it(
    console: Console, site: Site
) -> None:
    report = empty_report(72, 1)
    assert site.stow(part10(report)).status_code == 200
    console.go(f"/studies/{report.StudyInstanceUID}")
    expect(console.page.get_by_text("This study holds no images.")).to_have_count(1)


def test_f186_a_video_is_given_as_a_file_and_no_broken_picture(
    console: Console, site: Site
) -> None:
    stream = bytes(range(256)) * 10
    film = small(74, 1, 1, NumberOfFrames="25", SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.1.1")
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID
    film.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    film.PixelData = pydicom.encaps.encapsulate([stream], has_bot=False)
    film["PixelData"].VR = "OB"
    film["PixelData"].is_undefined_length = True
    # The first piece of JPEG data is missing, so nobody can draw it.
    torn = small(74, 2, 1)
    torn.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
    torn.PixelData = film.PixelData
    torn["PixelData"].is_undefined_length = True
    assert site.stow(part10(film), part10(torn)).status_code == 200
    console.go(f"/studies/2.25.99.74/series/2.25.99.74.1/instances/{film.SOPInstanceUID}")
    expect(console.page.locator("img.picture")).to_have_count(0)
    with console.page.expect_download() as download:
        console.page.get_by_role("link", name="Download the video").click()
    assert download.value.path().read_bytes() == stream
    console.go(f"/studies/2.25.99.74/series/2.25.99.74.2/instances/{torn.SOPInstanceUID}")
    expect(console.page.get_by_text("It cannot be drawn.")).to_have_count(1)
    expect(console.page.locator("img.picture")).to_have_count(0)


def test_f186_a_document_is_given_as_a_file(console: Console, site: Site) -> None:
    text = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
    sheet = small(75, 1, 1, Modality="DOC", SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")
    sheet.file_meta.MediaStorageSOPClassUID = sheet.SOPClassUID
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
        delattr(sheet, keyword)
    sheet.MIMETypeOfEncapsulatedDocument = "application/pdf"
    sheet.EncapsulatedDocument = text + b"\0" * (len(text) % 2)
    picture = small(75, 2, 1)
    assert site.stow(part10(sheet), part10(picture)).status_code == 200
    console.go(f"/studies/2.25.99.75/series/2.25.99.75.1/instances/{sheet.SOPInstanceUID}")
    with console.page.expect_download() as download:
        console.page.get_by_role("link", name="Download the document").click()
    assert download.value.suggested_filename == f"{sheet.SOPInstanceUID}.pdf"
    assert download.value.path().read_bytes().rstrip(b"\0") == text
    console.go(f"/studies/2.25.99.75/series/2.25.99.75.2/instances/{picture.SOPInstanceUID}")
    expect(console.page.get_by_role("link", name="Download as stored")).to_have_count(1)
    expect(console.page.get_by_role("link", name="Download the document")).to_have_count(0)


def test_f186_every_instance_of_a_long_series_is_on_some_page(console: Console, site: Site) -> None:
    long = [small(69, 1, number, PatientID="LONG") for number in range(1, 102)]
    assert site.stow(*map(part10, long)).status_code == 200
    page = console.page
    console.go("/studies/2.25.99.69/series/2.25.99.69.1")
    rows = page.locator("table[data-rows] tbody tr")
    expect(rows).to_have_count(100)
    page.get_by_role("link", name="Next").click()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("2.25.99.69.1.101")
    console.go("/studies/2.25.99.69/series/2.25.99.69.1?page=99")
    page.get_by_role("link", name="To the first page").click()
    expect(rows).to_have_count(100)


def test_f186_a_moment_says_in_which_zone_it_is(console: Console) -> None:
    console.go("/audit")
    moment = console.page.locator("td time").first
    zone = datetime.now().astimezone().tzname()
    expect(moment).to_have_text(re.compile(rf"^\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d {zone}$"))
    expect(moment).to_have_attribute("title", re.compile("UTC$"))


def test_f186_a_range_of_dates_is_kept_in_the_address(console: Console) -> None:
    page = console.page
    console.go("/studies")
    rows = page.locator("#list tbody tr")
    total = rows.count()
    page.fill("#since", "2026-03-02")
    page.fill("#until", "2026-03-02")
    page.wait_for_url("**/studies?*since=2026-03-02&until=2026-03-02*")
    expect(rows).not_to_have_count(total)
    dates = {text[:10] for text in page.locator("#list td:nth-child(4)").all_inner_texts()}
    assert dates == {"2026-03-02"}
    found = rows.count()
    # Sent to a colleague, whose browser may have no script.
    context = page.context.browser.new_context(  # type: ignore[union-attr]
        java_script_enabled=False, storage_state=page.context.storage_state()
    )
    other = context.new_page()
    other.goto(page.url)
    assert other.locator("#list tbody tr").count() == found
    assert other.input_value("#since") == "2026-03-02"
    other.fill("#since", "2999-01-01")
    other.fill("#until", "")
    other.click("button:text('Search')")
    expect(other.locator("#list h2")).to_have_text("Nothing found")
    context.close()
    rows.first.locator("td.number a").click()
    expect(page).to_have_url(re.compile("/studies/[0-9.]+$"))


def test_f186_a_header_is_searched_where_it_is(console: Console) -> None:
    page = console.page
    console.go(f"/studies/{console.study}")
    page.locator("a[data-open-row]").first.click()
    page.locator("a[data-open-row]").first.click()
    lines = page.locator(".header-lines tbody tr")
    expect(lines.first).to_be_visible()
    whole = lines.count()
    page.keyboard.press("/")
    page.keyboard.type("sopinstance ui")
    shown = page.locator(".header-lines tbody tr:visible")
    expect(shown).to_have_count(1)
    expect(shown).to_contain_text("SOPInstanceUID")
    page.locator("#filter").fill("")
    expect(shown).to_have_count(whole)


def test_f186_a_picture_that_cannot_be_drawn_gives_its_place_to_a_word(console: Console) -> None:
    page = console.page
    page.route(re.compile("/thumbnail"), lambda route: route.fulfill(status=404, body="{}"))
    try:
        console.go(f"/studies/{console.study}")
        expect(page.locator("span.thumbnail.none").first).not_to_be_empty()
        expect(page.locator("img.thumbnail")).to_have_count(0)
    finally:
        page.unroute(re.compile("/thumbnail"))
        console.faults.clear()


def test_s10_a_search_in_the_console_is_audited_without_the_words(console: Console) -> None:
    console.go("/studies?q=TWO&modality=CT")
    console.go("/audit")
    console.page.locator("tbody a").first.click()
    entry = console.page.locator("#content")
    expect(entry).to_contain_text("words")
    expect(entry).to_contain_text("modality")
    expect(entry).not_to_contain_text("TWO")


def test_f186_lists_are_walked_by_keyboard(console: Console) -> None:
    page = console.page
    console.go("/studies")
    box = page.locator("#q")
    page.keyboard.press("/")
    expect(box).to_be_focused()
    expect(box).to_have_value("")
    box.press_sequentially("TWO")
    expect(page).to_have_url(re.compile("q=TWO"))
    page.keyboard.press("Escape")
    # What was found stays, and can be walked.
    expect(box).to_have_value("TWO")
    expect(page.locator("table[data-rows] tbody tr")).to_have_count(1)
    page.keyboard.press("j")
    expect(page.locator("a[data-open-row]")).to_be_focused()

    console.go("/studies?days=")
    # The browser puts the focus there a moment after the page has loaded.
    expect(box).to_be_focused()
    page.keyboard.press("Escape")
    rows = page.locator("table[data-rows] tbody tr")
    assert rows.count() > 2
    for key, row in (("j", 0), ("j", 1), ("k", 0)):
        page.keyboard.press(key)
        expect(rows.nth(row).locator("a[data-open-row]")).to_be_focused()
    address = rows.nth(0).locator("a[data-open-row]").get_attribute("href")
    # A list that is drawn anew under somebody's hands keeps its current row.
    with page.expect_response("**/studies?*"):
        page.locator("#modality").dispatch_event("change")
    expect(page.locator("tr.is-current a[data-open-row]")).to_have_attribute("href", str(address))
    expect(page.locator("tr.is-current a[data-open-row]")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{address}")


def test_figures_lead_to_their_lists(console: Console) -> None:
    console.go("/health")
    figure = console.page.locator("a.figure").filter(has_text="Studies").first
    assert int(figure.locator("b").inner_text()) > 3
    figure.click()
    console.page.wait_for_url("**/studies")


@pytest.mark.skipif(not (DIST / "index.html").is_file(), reason="the viewer was not prepared")
def test_f188_the_viewer_is_one_click_away_from_a_study(console: Console) -> None:
    console.go(f"/studies/{console.study}")
    link = console.page.get_by_role("link", name=re.compile("viewer", re.IGNORECASE)).first
    address = link.get_attribute("href") or ""
    assert address.startswith("/viewer/")
    assert f"StudyInstanceUIDs={console.study}" in address
    answer = console.page.goto(console.url + address)
    assert answer is not None
    assert answer.status == 200
    expect(console.page.locator("#root")).not_to_be_empty(timeout=60_000)
