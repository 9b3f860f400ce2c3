"""The evaluation's page in a real browser: clicked, sorted, and asked for what it fetched."""

import html
import importlib.util
import itertools
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")

HOSTILE = "<script>alert(1)</script>"
NAMES = [HOSTILE, "\"'&</title><img src=x onerror=alert(2)>", "three", "four"]
NAMES_IN_ORDER = sorted(NAMES)  # as the snapshot has its classes
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
]


class Tab:
    """A page under Chromium's DevTools protocol."""

    def __init__(self, address: str) -> None:
        import websocket

        self._socket = websocket.create_connection(address, timeout=60)
        self._number = itertools.count()
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._number)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])
            self.events.append(message)

    def named(self, method: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event.get("method") == method]

    def js(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, path: Path) -> None:
        self.call("Page.navigate", url=path.as_uri())
        deadline = time.monotonic() + 60
        while self.js("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < deadline, "the page did not load"
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of the element."""
        x, y = self.js(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});"
            "const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, digits: tuple[Any, Any]) -> Path:
    """A real evaluation of digits whose classes have hostile names."""
    name = "world_of_test_evaluate"
    place = Path(__file__).parents[1] / "unit" / "steps" / "evaluate" / "test_step.py"
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    world = module.make_world(
        tmp_path_factory.mktemp("page"), digits, per_class=60, rename=lambda c: NAMES[c], wreck=0.3
    )
    module.run(**world.arguments())
    report: Path = world.folder / "out" / "report.html"
    return report


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    assert CHROMIUM is not None
    profile = tmp_path / "profile"
    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port_file, deadline = profile / "DevToolsActivePort", time.monotonic() + 60
        while not (port_file.exists() and port_file.read_text().strip()):
            assert process.poll() is None and time.monotonic() < deadline, "no browser"
            time.sleep(0.05)
        port = port_file.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            tabs = json.load(answer)
        opened = Tab(next(t["webSocketDebuggerUrl"] for t in tabs if t["type"] == "page"))
        yield opened
        opened.close()
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_the_page_fetches_nothing_and_has_no_error(tab: Tab, page: Path) -> None:
    tab.open(page)
    tab.js("window.scrollTo(0, document.body.scrollHeight)")
    time.sleep(0.3)  # pictures that load lazily
    assert tab.js("document.querySelectorAll('img').length") > 4
    assert tab.js("[...document.images].every((i) => !i.complete || i.naturalWidth > 0)")
    fetched = [event["request"]["url"] for event in tab.named("Network.requestWillBeSent")]
    assert page.as_uri() in fetched
    assert [url for url in fetched if url != page.as_uri() and not url.startswith("data:")] == []
    assert tab.named("Runtime.exceptionThrown") == []
    assert [e for e in tab.named("Log.entryAdded") if e["entry"]["level"] == "error"] == []


@pytest.mark.parametrize(
    ("folder", "link"),
    [("run", "data.html"), ("artifacts/evaluation", "../data.html"), ("model-1", "../data.html")],
)
def test_the_data_page_is_linked_where_it_is(
    folder: str, link: str, tab: Tab, page: Path, tmp_path: Path
) -> None:
    """In the folder of a run, and among the artifacts as MLflow keeps them."""
    copy = tmp_path / folder / "report.html"
    copy.parent.mkdir(parents=True)
    shutil.copy(page, copy)
    tab.open(copy)
    assert tab.js("document.querySelector('a.beside').getAttribute('href')") == link


def test_a_page_that_is_shown_alone_has_no_dead_link(tab: Tab, page: Path, tmp_path: Path) -> None:
    """As Kubeflow Pipelines shows an artifact: in a frame, without any file beside it."""
    frame = f'<iframe srcdoc="{html.escape(page.read_text(), quote=True)}"></iframe>'
    (tmp_path / "outer.html").write_text(frame)
    tab.open(tmp_path / "outer.html")
    inside = "document.querySelector('iframe').contentDocument"
    assert tab.js(f"{inside}.body.textContent.includes('data.html')")
    assert tab.js(f"{inside}.querySelector('a.beside')") is None


def test_a_click_on_a_cell_shows_those_mistakes(tab: Tab, page: Path) -> None:
    tab.open(page)
    buttons = tab.js(
        "[...document.querySelectorAll('.matrix button.wrong')].map((b) => ({...b.dataset}))"
    )
    assert buttons
    for cell in (buttons[-1], buttons[0]):
        chosen = f'[data-truth="{cell["truth"]}"][data-given="{cell["given"]}"]'
        tab.click(f".matrix button{chosen}")
        title = tab.js("document.querySelector('#cell h3').textContent")
        truth, given = NAMES_IN_ORDER[int(cell["truth"])], NAMES_IN_ORDER[int(cell["given"])]
        assert title == f"{truth}, taken for {given}: {cell['count']}"
        shown = tab.js("document.querySelectorAll('#cell img').length")
        assert shown == min(12, int(cell["count"]))
        sources = tab.js(
            "[...document.querySelectorAll('#cell li .quiet')].map((e) => e.textContent)"
        )
        digit = NAMES.index(truth)  # the folder of the file is the true digit
        assert all(f"/{digit}/" in source for source in sources)
        assert tab.js("document.querySelectorAll('[aria-expanded=\"true\"]').length") == 1
    assert tab.named("Runtime.exceptionThrown") == []


def test_a_click_on_a_heading_sorts(tab: Tab, page: Path) -> None:
    tab.open(page)
    column = "#classes tbody tr td:nth-child(5)"  # recall
    read = f"[...document.querySelectorAll('{column}')].map((e) => Number(e.dataset.value))"
    before = tab.js(read)
    tab.click("#classes thead th:nth-child(5) button")
    assert tab.js(read) == sorted(before, reverse=True)
    tab.click("#classes thead th:nth-child(5) button")
    assert tab.js(read) == sorted(before)
    assert tab.js("document.querySelector('#classes [aria-sort]').ariaSort") == "ascending"
    assert len(set(before)) > 1


def test_names_of_classes_stay_text(tab: Tab, page: Path) -> None:
    tab.open(page)
    assert tab.js(f"document.body.innerText.includes({json.dumps(HOSTILE)})")
    # The data and two scripts of the page's own; every picture is one of ours.
    assert tab.js("document.querySelectorAll('script').length") == 3
    assert tab.js("[...document.images].every((i) => i.src.startsWith('data:image/'))")
    for truth in range(4):
        tab.js(f"document.querySelector('.matrix button[data-truth=\"{truth}\"]').click()")
    assert tab.js("document.querySelectorAll('#cell script, #cell [onerror]').length") == 0
    assert tab.named("Page.javascriptDialogOpening") == []


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_sticks_out_of_the_window(tab: Tab, page: Path, width: int) -> None:
    tab.call(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=900,
        deviceScaleFactor=1,
        mobile=width < 500,
    )
    tab.open(page)
    assert tab.js("document.documentElement.scrollWidth") <= width
    assert tab.js(
        "[...document.querySelectorAll('section')].every("
        f"(s) => s.getBoundingClientRect().right <= {width})"
    )
    # Sentences name classes, and a folder's name may be a word of 255 letters.
    sentences = "document.querySelectorAll('p, li, figcaption')"
    tab.js(f"{sentences}.forEach((e) => e.append('y'.repeat(255)))")
    assert tab.js("document.documentElement.scrollWidth") <= width


def test_a_dropped_picture_is_answered_on_the_page(
    tab: Tab, exported_model: tuple[Any, ...], tmp_path: Path
) -> None:
    """``graftline try``: under its own content policy, and by its file input."""
    import threading

    import numpy as np
    from PIL import Image

    from graftline.onnx_model.predict import OnnxClassifier
    from graftline_pipelines.local.try_server import TryServer

    picture = tmp_path / "picture.png"
    pixels = np.random.default_rng(2).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    model = OnnxClassifier(exported_model[2].onnx)
    (expected,) = model.predict([picture], top=3)
    with TryServer(model) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        tab.call("Page.navigate", url=server.url)
        deadline = time.monotonic() + 60
        while not tab.js("document.readyState === 'complete' && !!document.querySelector('#file')"):
            assert time.monotonic() < deadline, "the page did not load"
            time.sleep(0.05)
        root = tab.call("DOM.getDocument")["root"]["nodeId"]
        node = tab.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        tab.call("DOM.setFileInputFiles", nodeId=node, files=[str(picture)])
        while tab.js("document.querySelector('#answer').hidden"):
            assert time.monotonic() < deadline, tab.js("document.body.innerText")
            time.sleep(0.05)
        shown = tab.js("[...document.querySelectorAll('.row span')].map((e) => e.textContent)")
        assert shown == [label for label, _ in expected.top]
        assert tab.js("document.querySelector('#map').naturalWidth") == 80
        server.shutdown()
    assert tab.named("Runtime.exceptionThrown") == []
    assert [e for e in tab.named("Log.entryAdded") if e["entry"]["level"] == "error"] == []


def test_a_click_on_a_class_shows_its_examples_and_mistakes(tab: Tab, page: Path) -> None:
    tab.open(page)
    data = tab.js("JSON.parse(document.getElementById('confusion-data').textContent)")
    counts = {tuple(map(int, key.split(","))): n for key, n in data["counts"].items()}
    for chosen in (0, 3):
        tab.click(f'#classes button[data-class="{chosen}"]')
        assert tab.js("document.querySelector('#class h3').textContent") == NAMES_IN_ORDER[chosen]
        told = tab.js("[...document.querySelectorAll('#class > .said')].map((e) => e.textContent)")
        missed = sum(n for (truth, given), n in counts.items() if truth == chosen != given)
        mistaken = sum(n for (truth, given), n in counts.items() if given == chosen != truth)
        expected = [counts.get((chosen, chosen), 0), missed, mistaken]
        shown = [int(re.search(r": (\d+)", text)[1]) for text in told]  # type: ignore[index]
        assert shown == [n for n in expected if n]
        assert tab.js("document.querySelectorAll('#class [onerror], #class script').length") == 0
    assert tab.named("Runtime.exceptionThrown") == []


def test_a_wide_table_says_that_it_scrolls_and_paper_cuts_nothing(tab: Tab, page: Path) -> None:
    size = {"height": 900, "deviceScaleFactor": 1}
    tab.call("Emulation.setDeviceMetricsOverride", width=390, mobile=True, **size)
    tab.open(page)
    wide = "[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth)"
    assert tab.js(f"{wide}.length") > 0
    assert tab.js(f"{wide}.every((e) => e.previousElementSibling.matches('.more'))")
    # A sheet of A4 without its margins, at 96 pixels an inch.
    tab.call("Emulation.setDeviceMetricsOverride", width=703, mobile=False, **size)
    tab.call("Emulation.setEmulatedMedia", media="print")
    tab.js("window.dispatchEvent(new Event('beforeprint'))")
    assert tab.js("[...document.querySelectorAll('details')].every((e) => e.open)")
    assert tab.js("document.documentElement.scrollWidth") <= 703
    assert tab.js(
        "[...document.querySelectorAll('table, svg, img')].every("
        "(e) => e.getBoundingClientRect().right <= 703)"
    )
    tab.js("window.dispatchEvent(new Event('afterprint'))")
    assert not tab.js("[...document.querySelectorAll('details')].some((e) => e.open)")
