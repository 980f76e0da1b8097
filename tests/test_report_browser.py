"""The report's page in headless Chromium: plots, filters, tables, addresses."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main as benchmarks
from benchmarks.report import figures
from tests import report_cases

PROGRAMS = ("chromium", "chromedriver")
MODULES = ("selenium", "jinja2", "matplotlib")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
MISSING += [name for name in MODULES if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"
)

# Sections that draw plots, and those that hold tables.
PLOTS = ("results", "anytime", "targets", "profiles", "accuracy", "rows", "weights")
TABLES = (
    "best",
    "results",
    "targets",
    "pairs",
    "scores",
    "rows",
    "statuses",
    "failures",
)
SHOWN = "return document.querySelector('main').innerText"


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("browser")
    path = report_cases.stored(folder)
    problems = str(folder / "problems")
    out = folder / "out"
    arguments = [str(path), "-o", str(out), "--problems", problems]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw", lambda *_: [])
        assert benchmarks(["report", *arguments]) == 0
    return Path(out / "index.html").as_uri()


@pytest.fixture
def opened(driver: Any, address: str) -> Iterator[Any]:
    """The page at 1400 pixels; it must not complain."""
    show(driver, address, 1400)
    yield driver
    assert driver.get_log("browser") == []


def show(driver: Any, address: str, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    # Another fragment alone would load nothing.
    driver.get("about:blank")
    driver.get(address)


def drawn(driver: Any) -> dict[str, list[list[float]]]:
    """Width and number of marks of the plots, by section."""
    script = """
        return Object.fromEntries(arguments[0].map((name) => [name,
          [...document.querySelectorAll(`#${name} svg.picture`)].map((picture) => [
            picture.getBoundingClientRect().width,
            picture.querySelectorAll("path, rect, polygon, g.mark, g.stop").length,
          ])]))"""
    found: dict[str, list[list[float]]] = driver.execute_script(script, PLOTS)
    return found


def sections(driver: Any) -> dict[str, str]:
    """What each section draws."""
    script = """
        return Object.fromEntries([...document.querySelectorAll("section")].map(
          (section) => [section.id, section.innerHTML.replace(/picture\\d+/g, "")]))"""
    found: dict[str, str] = driver.execute_script(script)
    return found


def click(driver: Any, name: str, value: str) -> None:
    box = f"#filter-{name} input[value='{value}']"
    driver.execute_script("document.querySelector(arguments[0]).click()", box)


def choose(driver: Any, control: str, value: str) -> None:
    script = """
        const select = document.querySelector(arguments[0]);
        select.value = arguments[1];
        select.dispatchEvent(new Event("change"))"""
    driver.execute_script(script, control, value)


def column(driver: Any, table: str, number: int) -> list[str]:
    script = """
        return [...document.querySelectorAll(`#table-${arguments[0]} tbody tr`)].map(
          (line) => line.children[arguments[1]].textContent)"""
    found: list[str] = driver.execute_script(script, table, number)
    return found


@pytest.mark.parametrize("width", [360, 1400])
def test_every_plot_is_drawn_and_fits(driver, address, width):
    show(driver, address, width)
    for name, plots in drawn(driver).items():
        assert plots, name
        for wide, marks in plots:
            assert 200 < wide <= width, name
            assert marks > 3, name
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert driver.execute_script("return document.images.length") == 0
    assert driver.get_log("browser") == []


@pytest.mark.parametrize(
    ("name", "value"), [("layer", "net.one"), ("bits", "2"), ("solver", "first")]
)
def test_every_filter_changes_every_plot_and_table(opened, name, value):
    before = sections(opened)
    click(opened, name, value)
    after = sections(opened)
    same = {section for section in before if before[section] == after[section]}
    assert same == {"summary", "environment", "protocol", "limits"}
    shown = opened.execute_script("return document.querySelector('.shown').textContent")
    assert " of " in shown


@pytest.mark.parametrize(
    ("section", "control", "value"),
    [
        ("results", "#controls-results select", "0"),
        ("anytime", "#controls-anytime select", "ratio"),
        ("profiles", "#controls-profiles select", "3"),
        ("profiles", "#controls-pair select", "third[option=1]"),
        ("weights", "#controls-weights select", "second"),
    ],
)
def test_controls_change_their_section_alone(opened, section, control, value):
    before = sections(opened)
    choose(opened, control, value)
    after = sections(opened)
    assert {name for name in before if before[name] != after[name]} == {section}


def test_a_link_restores_the_view(driver, address, opened):
    click(opened, "layer", "net.one")
    click(opened, "solver", "second")
    choose(opened, "#controls-anytime select", "ratio")
    opened.execute_script(
        "document.querySelector('[data-key=\"results.gap\"]').click()"
    )
    link, text = opened.current_url, opened.execute_script(SHOWN)
    assert link != address
    show(driver, link, 1400)
    assert opened.current_url == link
    assert opened.execute_script(SHOWN) == text
    opened.execute_script("document.getElementById('reset').click()")
    assert "solver" not in opened.current_url


def test_nothing_selected_is_said_and_kept(driver, address, opened):
    script = "document.querySelectorAll('#filter-solver + .all button')[1].click()"
    opened.execute_script(script)
    assert all(plots == [] for plots in drawn(opened).values())
    assert "Nothing is selected." in opened.execute_script(SHOWN)
    show(driver, opened.current_url, 1400)
    assert all(plots == [] for plots in drawn(opened).values())


@pytest.mark.parametrize("table", TABLES)
def test_tables_sort_by_every_column_both_ways(opened, table):
    opened.execute_script("document.getElementById('rows-table').open = true")
    keys = opened.execute_script(
        "return [...document.querySelectorAll(`#table-${arguments[0]} thead button`)]"
        ".map((button) => button.dataset.key)",
        table,
    )
    changed = set()
    for number, key in enumerate(keys):
        orders = []
        for _ in range(2):
            before = column(opened, table, number)
            click_key = f"document.querySelector('[data-key=\"{key}\"]')"
            opened.execute_script(f"{click_key}.focus(); {click_key}.click()")
            sort = opened.execute_script(
                f"return {click_key}.closest('th').getAttribute('aria-sort')"
            )
            orders.append(sort)
            # The keyboard stays where it was.
            focused = opened.execute_script("return document.activeElement.dataset.key")
            assert focused == key
            if column(opened, table, number) != before:
                changed.add(key)
        assert sorted(orders) == ["ascending", "descending"]
    assert changed


def test_the_order_of_a_sorted_column_is_that_of_its_numbers(opened):
    opened.execute_script(
        "document.querySelector('[data-key=\"results.gap\"]').click()"
    )
    gaps = [
        float(text.removesuffix("\u00a0%").removeprefix("<\u00a0"))
        for text in column(opened, "results", 6)
        if text != "–"
    ]
    assert len(gaps) > 10
    assert gaps == sorted(gaps)


def test_plots_answer_to_the_arrow_keys(opened):
    said = opened.execute_script("""
        const picture = document.querySelector("#anytime svg.picture");
        const key = new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true});
        picture.dispatchEvent(key);
        return picture.parentElement.querySelector(".readout").innerText""")
    assert said.startswith("after ")
    assert "first" in said


def test_everything_has_a_name_for_screen_readers(opened):
    unnamed = opened.execute_script("""
        const without = (what, has) =>
          [...document.querySelectorAll(what)].filter((one) => !has(one));
        return [
          ...without("svg.picture", (one) =>
            one.querySelector("title").textContent &&
            one.querySelector("desc").textContent),
          ...without("main table", (one) => one.caption),
          ...without("select, input", (one) => one.labels.length),
        ].map((one) => one.outerHTML.slice(0, 200))""")
    assert unnamed == []


def test_a_print_shows_every_section_and_no_controls(opened):
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        heights = opened.execute_script("""
            const height = (one) => one.getBoundingClientRect().height;
            return [...document.querySelectorAll("section, aside, .controls")].map(
              (one) => [one.id || one.tagName, height(one)])""")
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    for name, height in heights:
        assert (height == 0) == (name == "ASIDE" or name.startswith("controls")), name
