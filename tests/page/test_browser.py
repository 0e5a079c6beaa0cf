"""The page, opened from the disk in a browser without a screen."""

import os
import shutil

import pytest

from tests.page.support import made_run
from tests.page.test_page import hostile
from zoo import page

WANTED = ("chromium", "chromedriver")
MISSING = [name for name in WANTED if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING) and os.environ.get("ZOO_BROWSER") != "required",
    reason=f"no {' and no '.join(MISSING)} here (apt-get install chromium chromium-driver)",
)


@pytest.fixture(scope="module")
def browser():
    assert not MISSING, f"ZOO_BROWSER=required, and there is no {' and no '.join(MISSING)}"
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for option in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return page.write(made_run(tmp_path_factory.mktemp("page") / "run"))


def opened(browser, path, width=1200):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(path.as_uri())
    return browser


def asked_for(browser):
    """Addresses that were asked for since the last look."""
    import json

    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return {
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    }


def seen(browser):
    """The sample pictures that are visible, by step."""
    return browser.execute_script(
        "return [...document.querySelectorAll('#frames img')].filter(i => i.offsetHeight > 0)"
        ".map(i => i.dataset.step)"
    )


def test_it_asks_for_nothing_and_has_no_error(browser, run):
    opened(browser, run)
    sizes = browser.execute_script("return [...document.images].map(i => i.naturalWidth)")
    assert len(sizes) == 6 and all(size > 0 for size in sizes)
    assert browser.get_log("browser") == []
    outside = {url for url in asked_for(browser) if not url.startswith("data:")}
    assert outside == {run.as_uri()}


def test_the_slider_changes_the_picture(browser, run):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    opened(browser, run)
    slider, label = browser.find_element(By.ID, "step"), browser.find_element(By.ID, "shown")
    assert seen(browser) == ["500"] and label.text == "500"
    first = browser.get_screenshot_as_base64()
    for key, step in ((Keys.HOME, "100"), (Keys.ARROW_RIGHT, "200"), (Keys.END, "500")):
        slider.send_keys(key)
        assert seen(browser) == [step] and label.text == step
    slider.send_keys(Keys.HOME)
    assert browser.get_screenshot_as_base64() != first
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_no_width_needs_scrolling_to_the_side(browser, run, width):
    opened(browser, run, width)
    across, inner = browser.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert inner == width and across <= width
    cut = browser.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3,p,dd,td,.card,figure,svg')].filter("
        "e => e.getBoundingClientRect().right > window.innerWidth + 1 && !e.closest('.scroll'))"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert cut == []


def test_a_curve_says_the_value_under_the_pointer(browser, run):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    opened(browser, run)
    chart = next(
        c
        for c in browser.find_elements(By.CLASS_NAME, "chart")
        if "val/fid_pixels" in c.get_attribute("innerHTML")
    )
    said, svg = chart.find_element(By.CLASS_NAME, "value"), chart.find_element(By.TAG_NAME, "svg")
    assert said.text == "5.5 at step 500"
    browser.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", svg
    )
    wide = svg.rect["width"]
    for at, words in ((177 / 320, "1 at step 300"), (50 / 320, "5 at step 100")):
        ActionChains(browser, 0).move_to_element_with_offset(
            svg, int((at - 0.5) * wide), 0
        ).perform()
        assert said.text == words
    ActionChains(browser, 0).move_to_element_with_offset(svg, 0, -int(wide)).perform()
    assert said.text == "5.5 at step 500"


def test_both_colour_schemes_are_there(browser, run):
    opened(browser, run)
    colours = []
    for scheme in ("light", "dark"):
        feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
        style = "return getComputedStyle(document.body)"
        colours.append(
            [
                sum(int(v) for v in browser.execute_script(f"{style}.{of}")[4:-1].split(","))
                for of in ("backgroundColor", "color")
            ]
        )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    (light, ink), (dark, chalk) = colours
    assert light - ink > 400 and chalk - dark > 400


def test_a_hostile_folder_runs_nothing(browser, tmp_path):
    path = page.write(hostile(tmp_path / "evil"))
    opened(browser, path)
    assert browser.title.startswith("os.system on \"'></script>")  # as text
    assert browser.execute_script("return document.scripts.length") == 1
    assert browser.get_log("browser") == []
    outside = {url for url in asked_for(browser) if not url.startswith("data:")}
    assert outside == {path.as_uri()}
