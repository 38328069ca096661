"""The report in a real browser: without a network, by keyboard, on a phone, in the dark and on paper.

After each test the console has to be empty, and no request may have gone anywhere but to the file itself.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from page_runs import (
    HARMFUL,
    chrono,
    finished,
    hostile,
    hostile_questions,
    quant,
    questions,
    timeline,
    written,
)
from run_folders import finished_run
from summaries import HOSTILE, usual
from summaries import hostile as hostile_summary

pytest.importorskip("selenium")
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from orch_local.report.page import render
from orch_local.report.page.writing import page_of
from orch_local.report.safe import visible

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromedriver"),
]
COUNT = 320
PAGE = 50
PHONE = 360
Driver = webdriver.Chrome


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=Service(DRIVER)) as made:
        yield made


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Written once: a small run, one of several pages, a hostile one, and pages of summaries alone."""
    root = tmp_path_factory.mktemp("reports")
    made = {
        "small": written(finished_run(root / "small")),
        "many": written(finished(root / "many", questions(COUNT), (quant, chrono))),
        "hostile": written(finished(root / "hostile", hostile_questions(), (hostile, hostile))),
    }
    texts = iter(HOSTILE * 20)
    for name, summary in (("summary", usual()), ("hostile summary", hostile_summary(lambda: next(texts)))):
        made[name] = root / f"{name}.html"
        html = render(page_of(summary, [timeline("quant", "chrono"), timeline("verbal")]))
        made[name].write_text(html, encoding="utf-8")
    return made


Opened = Callable[..., Driver]


@pytest.fixture
def opened(driver: Driver, reports: Mapping[str, Path]) -> Iterator[Opened]:
    """Open a report, as wide and in the colours wanted; afterwards look at what the browser noted."""

    def go(name: str, width: int = 1280, scheme: str = "light", anchor: str = "") -> Driver:
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        prefer(driver, scheme)
        driver.get("about:blank")
        driver.get(f"{reports[name].as_uri()}{anchor}")
        if "summary" not in name:
            WebDriverWait(driver, 10, 0.02).until(
                lambda one: one.find_element(By.ID, "browser").is_displayed()
            )
        return driver

    forget(driver)
    yield go
    driver.execute_script("try { localStorage.clear() } catch {}")
    assert driver.get_log("browser") == []
    assert {url.split(":")[0] for url in requests(driver)} <= {"file", "about", "data"}
    assert driver.execute_script("return window.pwned") is None


def prefer(driver: Driver, scheme: str, media: str = "") -> None:
    """Colours of the system, and nothing that moves: a click must hit where the page stands."""
    wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in wanted.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def forget(driver: Driver) -> None:
    driver.get_log("browser")
    driver.get_log("performance")


def requests(driver: Driver) -> list[str]:
    """Addresses that were asked for."""
    events = [json.loads(line["message"])["message"] for line in driver.get_log("performance")]
    sent = [one["params"] for one in events if one["method"] == "Network.requestWillBeSent"]
    return [one["request"]["url"] for one in sent]


def lines(driver: Driver) -> list[WebElement]:
    return driver.find_elements(By.CSS_SELECTOR, "#questions-table tbody tr[id^=row]")


def count(driver: Driver) -> str:
    return driver.find_element(By.ID, "count").text


def search(driver: Driver, text: str, wanted: str) -> None:
    """Type, and wait for the line that says how many were found."""
    field = driver.find_element(By.ID, "find")
    field.clear()
    field.send_keys(text)
    WebDriverWait(driver, 5, 0.02).until(lambda one: count(one).startswith(wanted))


def click(driver: Driver, element: str | WebElement) -> None:
    """Click where a reader would have scrolled to: not under the line that stays at the top."""
    found = driver.find_element(By.CSS_SELECTOR, element) if isinstance(element, str) else element
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
    found.click()


def toggle(driver: Driver, number: int) -> None:
    """Open or close a line of the table."""
    click(driver, lines(driver)[number].find_element(By.CSS_SELECTOR, "button.open"))


def choose(driver: Driver, field: str, label: str) -> None:
    Select(driver.find_element(By.ID, field)).select_by_visible_text(label)


def story(driver: Driver, number: int = 0) -> WebElement:
    """What a line of the table opens to."""
    toggle(driver, number)
    return WebDriverWait(driver, 5, 0.02).until(lambda one: one.find_element(By.CSS_SELECTOR, ".story"))


def colours(driver: Driver) -> tuple[str, str]:
    style = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    background, text = driver.execute_script(style)
    return background, text


def test_loads_nothing_but_itself(opened: Opened, reports: Mapping[str, Path]) -> None:
    driver = opened("many")
    assert requests(driver) == [reports["many"].as_uri()]


def test_all_questions_of_a_small_run_are_listed(opened: Opened) -> None:
    assert len(lines(opened("small"))) == 4


def test_search_narrows_the_table(opened: Opened) -> None:
    driver = opened("many")
    assert count(driver).startswith(f"{COUNT} of {COUNT} questions")
    search(driver, "IS 31", "13 of")  # 31, 131, 231, and 310 to 319
    assert all("31 +" in line.text or "What is 31" in line.text for line in lines(driver))
    search(driver, "no such words", "No question matches.")
    assert lines(driver) == []


def test_search_finds_an_identifier(opened: Opened) -> None:
    driver = opened("many")
    key = questions(COUNT)[77].id
    search(driver, key, "1 of")
    assert "What is 77 + 4?" in lines(driver)[0].text


def test_category_narrows_the_table(opened: Opened) -> None:
    driver = opened("many")
    choose(driver, "category", "dates")
    assert count(driver).startswith(f"{COUNT // 2} of")
    assert {line.find_element(By.CSS_SELECTOR, "td").text for line in lines(driver)} == {"dates"}


def test_outcomes_share_out_the_questions(opened: Opened) -> None:
    driver = opened("many")
    found = {}
    for label in ("ORCH right", "ORCH wrong", "ORCH unscored", "An agent without an answer"):
        choose(driver, "outcome", label)
        found[label] = 0 if count(driver).startswith("No") else int(count(driver).split()[0])
    assert found.pop("An agent without an answer") == COUNT // 5
    assert sum(found.values()) == COUNT and 0 < found["ORCH wrong"] < COUNT


def test_filters_work_together(opened: Opened) -> None:
    driver = opened("many")
    choose(driver, "category", "sums")
    choose(driver, "outcome", "An agent without an answer")
    search(driver, "is 1", "13 of")  # 10, 100 to 190 by tens, 210 and 310
    assert all("failed" in line.text for line in lines(driver))


def test_pages_turn_and_stop_at_the_ends(opened: Opened) -> None:
    driver = opened("many")
    first = lines(driver)[0].text
    assert len(lines(driver)) == PAGE and count(driver).endswith(f"1 to {PAGE} are shown.")
    click(driver, "#previous")
    assert lines(driver)[0].text == first
    click(driver, "#next")
    assert lines(driver)[0].text != first and driver.find_element(By.ID, "page").text == "Page 2 of 7"
    click(driver, "#last")
    click(driver, "#next")
    assert len(lines(driver)) == COUNT % PAGE and driver.find_element(By.ID, "page").text == "Page 7 of 7"
    click(driver, "#first")
    assert lines(driver)[0].text == first


def test_a_filter_leads_back_to_the_first_page(opened: Opened) -> None:
    driver = opened("many")
    click(driver, "#last")
    choose(driver, "category", "sums")
    assert driver.find_element(By.ID, "page").text == "Page 1 of 4"


def test_a_question_opens_to_its_panel_and_its_merge(opened: Opened) -> None:
    driver = opened("many")
    search(driver, questions(COUNT)[7].id, "1 of")
    told = story(driver).text
    for said in ("What is 7 + 4?", "quant thinks of 7", "chrono thinks of 7", "merged 7: quant thinks of 7"):
        assert said in told
    toggle(driver, 0)
    assert driver.find_elements(By.CSS_SELECTOR, ".story") == []


def test_each_question_opens_to_its_own_details(opened: Opened) -> None:
    """Details lie in blocks in an order of urgency, not in that of the table."""
    driver = opened("many")
    click(driver, "#last")
    for number in (3, 11, 19):
        asked = COUNT - COUNT % PAGE + number
        assert f"chrono thinks of {asked}\n" in f"{story(driver, number).text}\n"
        toggle(driver, number)


def test_the_first_and_last_question_of_a_block_open(opened: Opened) -> None:
    driver = opened("many")
    meta = json.loads(str(driver.find_element(By.ID, "meta").get_property("textContent")))
    edge = meta["blocks"][0]
    assert edge < COUNT
    for rank in (0, edge - 1, edge, COUNT - 1):
        asked = meta["detailed"][rank]
        opened("many", anchor=f"#q={questions(COUNT)[asked].id}")
        told = WebDriverWait(driver, 5, 0.02).until(lambda one: one.find_element(By.CSS_SELECTOR, ".story"))
        assert f"chrono thinks of {asked}\n" in f"{told.text}\n"


def test_a_failed_analysis_says_why(opened: Opened) -> None:
    driver = opened("many")
    search(driver, questions(COUNT)[5].id, "1 of")
    assert "the engine died on this prompt" in story(driver).text


def test_a_link_opens_its_question(opened: Opened) -> None:
    key = questions(COUNT)[200].id
    driver = opened("many", anchor=f"#q={key}")
    found = WebDriverWait(driver, 5, 0.02).until(lambda one: one.find_element(By.CSS_SELECTOR, ".story"))
    assert "What is 200 + 4?" in found.text


def test_hostile_text_is_shown_and_does_nothing(opened: Opened) -> None:
    driver = opened("hostile")
    for number, text in enumerate(HARMFUL):
        told = story(driver, number).get_property("textContent")
        assert (
            str(told).count(visible(text[:200], newlines=True)) >= 2
        )  # the question, and what is said of it
        toggle(driver, number)
    open_everything(driver)
    assert driver.execute_script("return window.pwned") is None
    inside = "return [...document.querySelectorAll('#questions *')].map((one) => one.localName)"
    assert not set(driver.execute_script(inside)) & {"img", "iframe", "svg", "script", "style", "object"}
    handlers = (
        "[...document.querySelectorAll('*')].some((e) => [...e.attributes].some((a) => /^on/.test(a.name)))"
    )
    assert not driver.execute_script(f"return {handlers}")


def test_a_hostile_summary_does_nothing(opened: Opened) -> None:
    driver = opened("hostile summary")
    assert "<script>window.pwned = 1</script>" in driver.find_element(By.TAG_NAME, "body").text
    assert driver.find_elements(By.CSS_SELECTOR, "main img, main iframe, main script") == []


def test_hostile_addresses_do_nothing(opened: Opened) -> None:
    driver = opened("small", anchor="#q=%3Cimg%20src=x%20onerror=window.pwned=1%3E")
    assert count(driver) == "No question matches."


def test_all_works_by_keyboard(opened: Opened) -> None:
    driver = opened("many")
    press(driver, Keys.TAB)
    assert driver.switch_to.active_element.text == "Skip to the results"
    press(driver, Keys.ENTER)
    click(driver, "#find")
    press(driver, *"what 312")
    WebDriverWait(driver, 5, 0.02).until(lambda one: count(one).startswith("1 of"))
    press(driver, Keys.TAB, Keys.TAB, Keys.TAB, Keys.ENTER)
    button = driver.switch_to.active_element
    assert button.get_attribute("aria-expanded") == "true"
    press(driver, Keys.TAB)  # into what was opened
    press(driver, Keys.ESCAPE)
    assert driver.find_elements(By.CSS_SELECTOR, ".story") == []
    assert driver.switch_to.active_element == button and button.get_attribute("aria-expanded") == "false"


def press(driver: Driver, *keys: str) -> None:
    ActionChains(driver).send_keys(*keys).perform()


@pytest.mark.parametrize("name", ["small", "many", "hostile", "summary", "hostile summary"])
def test_a_phone_does_not_scroll_sideways(opened: Opened, name: str) -> None:
    driver = opened(name, width=PHONE)
    open_everything(driver)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= PHONE
    assert driver.execute_script("return innerWidth") == PHONE


def open_everything(driver: Driver) -> None:
    driver.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    driver.execute_script(
        "for (const one of [...document.querySelectorAll('.open')].slice(0, 9)) one.click()"
    )
    WebDriverWait(driver, 5, 0.02).until(
        lambda one: "Unpacking" not in one.find_element(By.TAG_NAME, "main").text
    )


def test_dark_and_light_follow_the_system_and_the_switch(opened: Opened) -> None:
    light, dark = colours(opened("small")), colours(opened("small", scheme="dark"))
    assert light[0] != dark[0] and light[1] != dark[1]
    driver = opened("small", scheme="dark")
    click(driver, "#theme")
    assert colours(driver) == light
    click(driver, "#theme")
    assert colours(driver) == dark
    prefer(driver, "light")
    assert colours(driver) == dark
    click(driver, "#theme")
    assert colours(driver) == light


def test_print_has_all_sections_on_white(opened: Opened) -> None:
    driver = opened("many", scheme="dark")
    printed = base64.b64decode(driver.print_page())
    assert printed.startswith(b"%PDF") and printed.count(b"/Type /Page\n") >= 4
    prefer(driver, "dark", media="print")
    assert colours(driver)[0] == "rgb(255, 255, 255)"
    hidden = "[...document.querySelectorAll('main section')].filter((one) => one.offsetHeight < 40).length"
    assert driver.execute_script(f"return {hidden}") == 0
    assert not driver.find_element(By.CSS_SELECTOR, ".pager").is_displayed()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["small", "summary"])
def test_axe_finds_no_barrier(opened: Opened, name: str, scheme: str) -> None:
    import axe_core_python

    source = Path(axe_core_python.__file__).parent / "axe.min.js"
    driver = opened(name, scheme=scheme)
    open_everything(driver)
    driver.execute_script(source.read_text(encoding="utf-8"))
    ran = "axe.run(document, {resultTypes: ['violations']}).then((found) => arguments[0](found.violations))"
    found = driver.execute_async_script(ran)
    assert [_violation(one) for one in found] == []


def _violation(found: Mapping[str, Any]) -> str:
    """Short enough for the report of a failed test."""
    nodes = [f"{node['html'][:120]} ({node.get('failureSummary', '')[:300]})" for node in found["nodes"][:4]]
    return f"{found['id']}: {'; '.join(nodes)}"
