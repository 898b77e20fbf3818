"""axe-core finds no violation, and everything can be reached and worked by keyboard alone."""

import pytest
from conftest import ROOT
from web_pages import NOTES, clear_status, open_page, paste, search, wait_for

pytestmark = pytest.mark.slow

AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
FOCUSED = "() => document.activeElement.id || document.activeElement.className"


def violations(page):
    page.evaluate(AXE.read_text(encoding="utf-8") + "; () => null")
    found = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    assert len(found["passes"]) > 20, "it looked at the page"
    return [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing(browser, site, scheme, width):
    viewport = {"width": width, "height": 800}
    with browser.new_context(color_scheme=scheme, viewport=viewport, bypass_csp=True) as context:
        page = open_page(context, site)
        assert violations(page) == []
        paste(page, NOTES)
        search(page, "pets resting")
        page.fill("#threshold", "0.5")
        page.locator("#groups summary").first.click()
        page.focus("#canvas-box")
        page.keyboard.press("ArrowRight")
        assert violations(page) == []
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"


def test_keyboard_alone(page):
    page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
    page.focus(".skip")
    page.keyboard.press("Enter")
    assert page.evaluate(FOCUSED) == "query"
    page.focus("#pasted")
    page.keyboard.insert_text("\n".join(NOTES))
    clear_status(page)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    wait_for(page, "#status", "Ready.")
    reached = []
    while "summary" not in reached and len(reached) < 20:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("() => document.activeElement.id || document.activeElement.localName"))
    expected = ["files", "folder", "query", "threshold", "nearer", "farther", "canvas-box"]
    assert [name for name in reached if name in expected] == expected
    page.keyboard.press("Enter")
    page.locator("#groups details[open] li").nth(1).wait_for()
    page.focus("#threshold")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#threshold-text") == "0.71"
    page.focus("#delete")
    page.keyboard.press("Enter")
    wait_for(page, "#status", "7 passages deleted.")


def test_landmarks_and_live_regions(page):
    for role in ("banner", "main", "contentinfo", "search"):
        assert page.get_by_role(role).count() == 1
    for name in ("Add texts", "Groups", "Your texts", "This device"):
        assert page.get_by_role("region", name=name).count() == 1
    assert page.locator("[role=status]").count() >= 3
    assert page.get_attribute("#error", "role") == "alert"


def test_reduced_motion(browser, site):
    with browser.new_context(reduced_motion="reduce") as context:
        page = context.new_page()
        page.goto(site)
        moving = "() => document.getAnimations().length"
        assert page.evaluate(moving) == 0
        style = "() => getComputedStyle(document.documentElement).scrollBehavior"
        assert page.evaluate(style) == "auto"
