"""How long a visitor of the explorer waits, in a real browser: for the whole view, and for a pixel.

    python benchmarks/explorer.py                       # the digits
    python benchmarks/explorer.py --sessions 10         # ten visitors at once

Chromium must be on the PATH. Times are of this machine and its load: they show whether answers come while one looks.
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from urllib.request import urlopen

from playwright.sync_api import sync_playwright
from script import run

CLICKS = 20


def main():
    """Visit, run, click, and print what that took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sessions", type=int, default=1, help="visitors at once, all but one without a browser"
    )
    args, options = parser.parse_known_args()
    command = [sys.executable, "-m", "patchmosaic", "explore", "--port", "0", "--no-browser", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        answer = server.stdout.readline().split()
        if not answer:  # it has said why
            raise SystemExit(1)
        address = answer[-1]
        stop = threading.Event()
        others = [
            threading.Thread(target=wander, args=(address, 1000 * i, stop)) for i in range(1, args.sessions)
        ]
        try:
            for other in others:
                other.start()
            whole, clicks = visit(address)
        finally:
            stop.set()
            for other in others:
                other.join()
            server.terminate()
    print(f"whole view, 20 steps: {whole:.2f} s")
    print(f"a pixel: median {statistics.median(clicks):.3f} s, longest {max(clicks):.3f} s, of {CLICKS}")


def visit(address):
    """Seconds from pressing run to the whole view, and from each click to its patches."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.wait_for_selector('body[data-ready="true"]', timeout=600_000)
        idle(page)
        page.fill("#seed", "5")
        begun = time.perf_counter()
        page.click("#run")
        page.wait_for_url(re.compile("seed=5"), timeout=600_000)
        idle(page)
        whole = time.perf_counter() - begun
        box, clicks = page.query_selector("#panel-prediction img").bounding_box(), []
        for i in range(CLICKS):
            begun = time.perf_counter()
            page.mouse.click(
                box["x"] + (0.1 + 0.8 * (i % 5) / 5) * box["width"],
                box["y"] + (0.1 + 0.8 * i / CLICKS) * box["height"],
            )
            page.wait_for_selector('body[data-busy="true"]')
            idle(page)
            clicks.append(time.perf_counter() - begun)
        browser.close()
    return whole, clicks


def idle(page):
    """Until no answer is waited for."""
    page.wait_for_selector('body[data-busy="false"]', timeout=600_000)


def wander(address, seed, stop):
    """Another visitor: runs and pixels, one after the other."""
    while not stop.is_set():
        seed += 1
        for path in (f"run?seed={seed}", *(f"pixel?seed={seed}&row={i}&col=3&step=12" for i in range(8))):
            with urlopen(f"{address}api/{path}") as answer:
                answer.read()


if __name__ == "__main__":
    run(main)
