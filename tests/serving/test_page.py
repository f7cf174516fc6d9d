"""The live service's page in a real Chromium, against the real doors and a service that makes everything up."""

from __future__ import annotations

import re
import time
from importlib import resources

import pytest
from browser import FOUND, NONE, Browser
from serving.fake_service import FakeService, Running

PAGE = resources.files("streamingvlm.serving") / "page"
HOSTILE = "<img src=x onerror=alert(1)>"
# the tile of a camera, by its name
TILE = "[...document.querySelectorAll('#wall .tile')].find(one => one.querySelector('.name').textContent === {!r})"


def test_page_needs_nothing_from_elsewhere_and_runs_under_a_strict_policy():
    files = {one.name: one.read_text() for one in PAGE.iterdir() if one.name.endswith((".html", ".js", ".css"))}
    html = files["index.html"]
    assert len(files) > 8 and not re.search(r"""(src|href)=["'](https?:)?//""", html)
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", html), "a script or style inside the HTML, which the policy forbids"
    for name, text in files.items():
        if name.endswith(".js"):
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), f"{name} makes markup from text"
            assert len(text.splitlines()) <= 300
            assert set(re.findall(r'from "\./([^"]+)"', text)) <= set(files), f"{name} imports what is not there"
        if name.endswith(".css"):
            assert "@import" not in text and "url(" not in text
    used = set(re.findall(r'\bat\("([^"]+)"\)', "".join(files.values())))
    assert used <= set(re.findall(r'id="([^"]+)"', html)), "a script asks for a part that the page lacks"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if FOUND is None:
        pytest.skip(NONE)
    with Browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def page(browser):
    browser.open("about:blank")
    browser.until("location.href === 'about:blank'")
    browser.complaints.clear()  # those of a page whose service is gone
    return browser


def pixels(page: Browser, name: str) -> int:
    """A number that tells two pictures of a tile's canvas apart."""
    return page(f"{{const c = {TILE.format(name)}.querySelector('canvas'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
                "let sum = 0; for (let k = 0; k < d.length; k += 4) sum = (sum * 31 + d[k] * 3 + d[k + 1] * 5 + d[k + 2]) % 1000003; sum}")


def blue(page: Browser, name: str) -> int:
    """Pixels of the colour of a person's box."""
    return page(f"{{const c = {TILE.format(name)}.querySelector('canvas'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
                "let n = 0; for (let k = 0; k < d.length; k += 4) n += d[k] === 0x56 && d[k + 1] === 0xb4 && d[k + 2] === 0xe9; n}")


@pytest.fixture
def watched(page):
    """Three cameras without events of their own, on the page. The console must be silent at the end."""
    with Running(FakeService(3, eventful=False)) as running:
        page.open(running.address)
        page.until("document.querySelectorAll('#wall .tile').length === 3")
        yield page, running.call, running.service
        assert [said for said in page.complaints if " 422 " not in said and " 409 " not in said] == [], "the console complains"


def test_a_phone_sees_all_of_it_by_day_and_by_night(watched):
    page, *_ = watched
    grounds = []
    try:
        for dark in (False, True):
            page.screen(390, 844, dark=dark, phone=True)
            page.until(f"matchMedia('(prefers-color-scheme: dark)').matches === {str(dark).lower()} && innerWidth === 390")
            assert page("document.documentElement.scrollWidth") <= 390, "nothing is pushed out of the screen"
            assert page("[...document.querySelectorAll('#wall .tile')].every(one => one.getBoundingClientRect().right <= 391)")
            grounds.append(page("getComputedStyle(document.body).backgroundColor"))
    finally:
        page.screen(1280, 800)
    assert grounds[0] != grounds[1]


def test_pictures_move_under_their_boxes_and_keys_lead_through_the_cameras(watched):
    page, call, service = watched
    page.until("document.querySelector('#summary').textContent.startsWith('3 of 3 live')")
    page.until("document.querySelector('#wall .late').textContent.endsWith('ms')")
    end = time.monotonic() + 10
    while not blue(page, "gate-1"):
        assert time.monotonic() < end, "no box is drawn"
    before = pixels(page, "gate-1")
    while pixels(page, "gate-1") == before:
        assert time.monotonic() < end, "the picture stands still"

    page("document.querySelector('#wall .tile').focus()")
    page.key("ArrowRight")
    page.key("Enter")
    page.until("document.querySelector('#focus-name').textContent === 'gate-2' && !document.querySelector('#focus').hidden")
    assert page("document.activeElement.id") == "focus-name" and page("location.hash") == "#camera=gate-2"
    call(service.say, "gate-2", HOSTILE)
    page.until(f"document.querySelector('#focus-comments').textContent.includes({HOSTILE!r})")
    page.until("document.querySelector('#focus-latency td').textContent !== '–'")
    for question, answer in (("who is there?", "nobody in sight"), ("say", "That is no question")):
        page(f"{{const form = document.querySelector('#focus-ask'); form.elements.question.value = {question!r}; form.requestSubmit()}}")
        page.until(f"document.querySelector('#focus-answer').textContent.includes({answer!r})")
    page.complaints.clear()  # the refusal, which the browser notes
    page.key("Escape")
    page.until("document.querySelector('#focus').hidden")
    assert page(f"document.activeElement === {TILE.format('gate-2')}"), "back to where one came from"
    page.key("?")
    assert page("document.querySelector('#help').open")


def test_an_alarm_is_told_and_leads_to_its_camera_and_a_state_says_its_reason(watched):
    page, call, service = watched
    call(service.alarm, "gate-3", "fall", "on")
    page.until(f"{TILE.format('gate-3')}.querySelector('.badge')?.textContent === 'fall'")
    page.until("document.querySelector('#said').textContent === 'Alarm: fall at gate-3'")
    page.key("a")
    page.until("document.activeElement.closest('#alarm-list')")
    page.key("Enter")
    page.until("document.querySelector('#focus-name').textContent === 'gate-3' && document.querySelector('#moment-picture').naturalWidth === 320")
    call(service.alarm, "gate-3", "fall", "off")
    page.until("document.querySelector('#alarm-list .lasted').textContent.startsWith('for ')")
    page.key("Escape")

    call(service.state, "gate-1", "stalled", "The camera sends nothing.")
    page.until(f"{TILE.format('gate-1')}.querySelector('.veil').textContent === 'stalled: The camera sends nothing.'")
    choose = "{const kind = document.querySelector('#filter-kind'); kind.value = %r; kind.dispatchEvent(new Event('input'))}"
    page(choose % "not-live")
    assert page("[...document.querySelectorAll('#wall .name')].map(one => one.textContent).join()") == "gate-1"
    page(choose % "kind:fall")
    assert page("document.querySelectorAll('#wall .name').length + document.querySelectorAll('#alarm-list li').length") == 1, "the alarm, no camera"


def test_cameras_are_added_and_removed_a_refusal_stands_at_its_field_and_a_name_is_never_markup(watched):
    page, call, service = watched
    fill = "{const form = document.querySelector('#add-form'); form.elements.url.value = %r; form.elements.name.value = %r; form.requestSubmit()}"
    page.key("n")
    assert page("document.querySelector('#add').open")
    page(fill % ("ftp://x", HOSTILE))
    page.until("document.querySelector('#add-error').textContent.startsWith(\"The address 'ftp://x' has no kind\")")
    assert page("document.activeElement.name + document.activeElement.getAttribute('aria-invalid')") == "urltrue"
    page(fill % ("rtsp://x", "gate-2"))
    page.until("document.querySelector('[name=name][aria-invalid]') && document.querySelector('#add-error').textContent.includes('already')")
    page(fill % ("pattern:x", HOSTILE))
    page.until(f"!document.querySelector('#add').open && {TILE.format(HOSTILE)}")

    page(f"{TILE.format(HOSTILE)}.click()")
    page.until(f"document.querySelector('#focus-name').textContent === {HOSTILE!r}")
    call(service.alarm, HOSTILE, HOSTILE, "on")
    page.until("document.querySelector('#alarm-list').textContent.includes('<img')")
    page("document.querySelector('#focus-remove').click()")
    assert page("document.activeElement.textContent") == "Keep it"
    page("document.querySelector('#remove-form').requestSubmit()")
    page.until(f"document.querySelector('#focus').hidden && !{TILE.format(HOSTILE)}")
    assert HOSTILE not in service.watched
    assert page("[...document.images].every(one => !one.src.endsWith('/x'))")


def test_the_camera_of_this_browser_is_offered_and_a_refusal_is_said(watched):
    page, _, service = watched
    page("{document.querySelector('#open-webcam').click(); const form = document.querySelector('#webcam-form');"
         "form.elements.name.value = 'laptop'; form.requestSubmit()}")
    page.until("document.querySelector('#webcam-error').textContent === 'This made-up service takes no WebRTC.'")
    (offered,) = service.offers
    assert "m=video" in offered and "a=sendonly" in offered and "m=audio" not in offered and "a=candidate" in offered
    assert "laptop" in service.watched and page("!document.querySelector('#webcam-picture').srcObject"), "the camera's lamp is out again"


def test_a_lost_service_is_told_and_what_was_missed_is_caught_up_once(page):
    first = FakeService(1, eventful=False)
    with Running(first) as running:
        port = int(running.address.rsplit(":", 1)[1])
        page.open(running.address)
        page.until("document.querySelector('#wall .late')?.textContent.endsWith('ms')")
        running.call(first.alarm, "gate-1", "fall", "on")
        page.until("document.querySelectorAll('#alarm-list li').length === 1")
    page.until("document.body.classList.contains('lost') && !document.querySelector('#banner').hidden")
    assert page("document.querySelector('#banner-text').textContent").startswith("No connection")
    second = FakeService(1, eventful=False)
    second.results.newest = first.results.newest  # the numbers go on, as they do by the clock
    second.begin_with = [("alarm", "gate-1", "bag", "on"), ("say", "gate-1", "it is back")]
    with Running(second, port) as running:
        page.until("!document.body.classList.contains('lost') && document.querySelector('#banner-text').textContent.startsWith('Connected again')")
        page.until("document.querySelectorAll('#alarm-list li').length === 2")
        running.call(second.alarm, "gate-1", "bag", "off")
        page.until("[...document.querySelectorAll('#alarm-list .lasted')].some(one => one.textContent.startsWith('for '))")
        page(f"{TILE.format('gate-1')}.click()")
        page.until("document.querySelectorAll('#focus-comments li').length > 0")
        assert page("[...document.querySelectorAll('#focus-comments li')].filter(one => one.textContent.includes('it is back')).length") == 1
        assert page("document.querySelectorAll('#alarm-list li').length") == 2
        assert "caught up" in page("document.querySelector('#banner-text').textContent")
