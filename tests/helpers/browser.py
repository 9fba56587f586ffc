"""A Chromium that opens pages, controlled by the Chrome DevTools Protocol over two pipes."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from helpers.command import environment
from helpers.waiting import TIMEOUT

CHROMIUM = shutil.which("chromium")

# It uses no network.
_OPTIONS = """
    --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars
    --disable-background-networking --disable-component-update --disable-sync
    --remote-debugging-pipe
""".split()

_PIXELS = """(async () => {
    const image = new Image();
    image.src = "data:image/png;base64,%s";
    await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const {data} = context.getImageData(0, 0, image.width, image.height);
    const number = (r, g, b) => (r << 16) + (g << 8) + b;
    const colours = new Set();
    for (let at = 0; at < data.length; at += 4)
        colours.add(number(data[at], data[at + 1], data[at + 2]));
    return {
        width: image.width, height: image.height, first: [...data.slice(0, 3)],
        seen: %s.map(colour => colours.has(number(...colour))),
    };
})()"""


class Browser:
    """One Chromium for many pages; the end of the `with` stops it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._events: list[dict] = []

    def __enter__(self) -> Browser:
        its_input, self._orders = os.pipe()
        answers, its_output = os.pipe()
        profile = self._folder / "profile"
        # It reads from descriptor 3 and writes to 4.
        moves = f'exec 100<&{its_input} 101>&{its_output}; exec "$@" 3<&100 4>&101'
        self._process = subprocess.Popen(
            ["bash", "-c", moves, "bash", CHROMIUM, *_OPTIONS, f"--user-data-dir={profile}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(its_input, its_output),
            env=environment(HOME=str(self._folder)),
            start_new_session=True,
        )
        os.close(its_input)
        os.close(its_output)
        self._answers = open(answers, "rb", buffering=0)
        self._read = b""
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._orders)
        self._answers.close()
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait(TIMEOUT)

    def call(self, method: str, session: str | None = None, **parameters) -> dict:
        """Call a method of the protocol; return its result. Keep events that arrive before it."""
        number = next(self._numbers)
        order = {"id": number, "method": method, "params": parameters}
        if session is not None:
            order["sessionId"] = session
        left = json.dumps(order).encode() + b"\0"
        while left:
            left = left[os.write(self._orders, left) :]
        while (answer := self._message()).get("id") != number:
            self._events.append(answer)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def wait_for_event(self, method: str, session: str, **parameters) -> None:
        """Wait for an event with these parameters, and perhaps others."""
        while not any(
            parameters.items() <= found.items() for found in self.events(method, session)
        ):
            self._events.append(self._message())

    def events(self, method: str, session: str) -> list[dict]:
        """Return the parameters of all events of a kind that have arrived."""
        return [
            event["params"]
            for event in self._events
            if event.get("method") == method and event.get("sessionId") == session
        ]

    def _message(self) -> dict:
        while b"\0" not in self._read:
            piece = self._answers.read(1 << 20)
            assert piece, "the browser has ended"
            self._read += piece
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)

    def open(self, html: str, width: int = 1200, height: int = 700, *, is_dark=False) -> Page:
        """Open a page and wait until it is loaded."""
        file = self._folder / "page.html"
        file.write_text(html)
        return Page(self, file.as_uri(), width, height, "dark" if is_dark else "light")

    def pixels(self, png: str, colours: list[list[int]]) -> dict:
        """Return a picture's size and first colour, and for each given colour whether it occurs."""
        blank = Page(self, "about:blank", 100, 100, "light")
        return blank.evaluate(_PIXELS % (png, json.dumps(colours)))


class Page:
    """A page that is loaded."""

    def __init__(self, browser: Browser, url: str, width: int, height: int, scheme: str) -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Log", "Runtime"):
            self._call(f"{domain}.enable")
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        preferred = {"name": "prefers-color-scheme", "value": scheme}
        self._call("Emulation.setEmulatedMedia", features=[preferred])
        self._call("Page.setLifecycleEventsEnabled", enabled=True)
        loader = self._call("Page.navigate", url=url)["loaderId"]
        # Not that of the blank page, which may be loaded now.
        browser.wait_for_event("Page.lifecycleEvent", self._session, name="load", loaderId=loader)

    def _call(self, method: str, **parameters) -> dict:
        return self._browser.call(method, self._session, **parameters)

    def evaluate(self, expression: str):
        """Evaluate JavaScript in the page; return the result, also that of a promise."""
        done = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"]["value"]

    def screenshot(self) -> str:
        """A PNG, in base64."""
        return self._call("Page.captureScreenshot")["data"]

    @property
    def complaints(self) -> list[str]:
        """Return the console messages of scripts and of the security policy."""
        self.evaluate("1")  # after this call, all earlier messages have arrived
        logged = self._browser.events("Log.entryAdded", self._session)
        said = self._browser.events("Runtime.consoleAPICalled", self._session)
        raised = self._browser.events("Runtime.exceptionThrown", self._session)
        return [event["entry"]["text"] for event in logged] + list(map(str, said + raised))
