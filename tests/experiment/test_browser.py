"""The page of a report in a browser sorts, filters and shows values; skipped where there is no Chromium."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from folders import HELPS, write_sweep

from experiment.report.page import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ACT = """
<script>
{
const rows = () => [...document.querySelectorAll("#runs tbody tr")].filter(row => !row.hidden);
const told = [];
const heads = [...document.querySelectorAll("#runs th")];
const accuracy = heads.find(head => head.textContent.startsWith("test acc"));
const cell = row => row.cells[accuracy.cellIndex].textContent.replace("\\u00a0", " ");
const column = () => rows().map(cell).join();
accuracy.click(); told.push(column());
accuracy.click(); told.push(column());
const filter = document.getElementById("filter");
filter.value = "finished dropout=0.5"; filter.dispatchEvent(new Event("input"));
told.push(document.getElementById("count").textContent, rows().length);
const svg = document.querySelector("svg[data-points]"), [x, y, text] = JSON.parse(svg.dataset.points)[0];
const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
const at = {clientX: box.left + x * scale, clientY: box.top + y * scale, bubbles: true};
svg.dispatchEvent(new PointerEvent("pointermove", at));
const tip = document.getElementById("tip");
told.push(tip.textContent === text && tip.style.display, document.documentElement.scrollWidth <= innerWidth);
document.title = told.join("|");
}
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [500, 1280])
def test_the_page_sorts_filters_and_shows_values(tmp_path: Path, width: int):
    folder = write_sweep(tmp_path / "s", {"0.0": [0.91, 0.9], "0.5": [0.93, 0.92]}, [HELPS])
    write_report([folder], tmp_path / "out")
    page = tmp_path / "out" / "report.html"
    page.write_text(page.read_text().replace("</html>", f"{ACT}</html>"))
    assert CHROMIUM is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    done = subprocess.run(
        [CHROMIUM, *options, f"--window-size={width},900", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    found = re.search(r"<title>(.*?)</title>", done.stdout)
    assert found is not None, done.stderr
    up, down, count, shown, tip, fits = found[1].split("|")
    assert up == "90.00 %,91.00 %,92.00 %,93.00 %"
    assert down == "93.00 %,92.00 %,91.00 %,90.00 %"
    assert (count, shown) == ("2 of 4", "2")
    assert tip == "block"
    assert fits == "true"
