"""What students and instructors see: everything that matters, nothing that is hidden, nothing live."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from mbrl_autograder.grading.model import (
    GRADED,
    MISSING,
    TIMED_OUT,
    UNREADABLE,
    ClassResult,
    Exercise,
    Outcome,
    Row,
)
from mbrl_autograder.grading.notebooks import NotANotebookError, read_content
from mbrl_autograder.judge.plan import MAX_CELLS
from mbrl_autograder.judge.results import FAILED, PARTIAL, PASSED, CellResult
from mbrl_autograder.judge.results import TIMED_OUT as TEST_TIMED_OUT
from mbrl_autograder.pages import write_feedback, write_overview
from mbrl_autograder.pages.alike import alike, normal_form
from mbrl_autograder.pages.cells import Pictures
from mbrl_autograder.pages.charts import levels
from mbrl_autograder.pages.feedback import _with_use
from small_course import metadata

EXERCISES = (
    Exercise("refit", "build", ("refit-test-1", "refit-test-2"), 4),
    Exercise("noise", "build", ("noise-test-1",), 2, bonus=True),
    Exercise("why", "experiments", ("why",), 3, by_hand=True),
)
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "b", "div", "span", "section"),
    *("ul", "li", "details", "summary", "pre", "code", "img", "a", "table", "tr", "th", "td"),
    *("svg", "rect", "text", "line"),
}
VOID = {"meta", "img"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """A page's text and pictures; whatever could be live in it fails."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.raw = path, path.read_text(encoding="utf-8")
        self.words: list[str] = []
        self.pictures: list[str] = []
        self.links: list[str] = []
        self._open: list[str] = []
        self.feed(self.raw)
        self.close()
        assert self._open == [], "every element is closed"

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, f"<{tag}> on a page"
        for name, value in attrs:
            assert not name.startswith("on"), f"{name} on a page"
            if name in ("src", "href"):
                assert value is not None
                if tag == "img":
                    assert value.startswith(("data:image/png;base64,", "data:image/jpeg;base64,"))
                    self.pictures.append(value)
                else:
                    assert tag == "a" and ":" not in value and not value.startswith("/")
                    self.links.append(value)
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.words.append(data)


def picture(kind: str = "PNG") -> str:
    data = io.BytesIO()
    Image.new("RGB", (8, 6)).save(data, kind)
    return base64.b64encode(data.getvalue()).decode()


def owned(meta: dict[str, Any], **own: Any) -> dict[str, Any]:
    return {**meta, "mbrl_course": own}


TEST = (
    "check_close('mean', refit(1), 2)\ncheck_shape('std', refit(1), (1,))\n### BEGIN HIDDEN TESTS\n"
    "check_close('SECRET', refit(4711), 815)\n### END HIDDEN TESTS\nprint('Right: these are the elites.')"
)


def build(**changes: str) -> NotebookNode:
    """A marked notebook; `changes` replaces texts of it."""
    code = changes.get("code", "def refit(x):\n    return x")
    own = new_code_cell(changes.get("own", "scratch()"), outputs=[new_output("stream", text="1\n")])
    titled = owned(metadata("refit-test-1", points=2), exercise="refit", number="3.1", title="Refit")
    cells = [
        new_markdown_cell("### Exercise 3.1 · Refit"),
        new_code_cell(code, metadata=metadata("refit", solution=True)),
        new_code_cell(TEST, metadata=titled),
        new_code_cell(TEST, metadata=metadata("refit-test-2", points=2)),
        new_markdown_cell(changes.get("heading", "## Exercise 3.2 · Noise")),
        new_code_cell("def noise(): ...", metadata=metadata("noise-solution", solution=True)),
        new_code_cell("check_close('beta', noise(), 1)", metadata=metadata("noise-test-1", points=2)),
        own,
    ]
    return new_notebook(cells=cells)


def answers(text: str = "Because x < y.", *outputs: NotebookNode) -> NotebookNode:
    cells = [
        new_markdown_cell("## 1. Planners\n\nWhich one wins?"),
        new_markdown_cell(text, metadata=metadata("why", points=3, solution=True)),
        new_code_cell("plot()", outputs=list(outputs)),
    ]
    return new_notebook(cells=cells)


CELLS = {
    "refit-test-1": CellResult(2, 2, PASSED),
    "refit-test-2": CellResult(
        0, 2, FAILED, "A hidden check did not pass.", "SECRET is 1, expected 815", True
    ),
    "noise-test-1": CellResult(0, 2, FAILED, "beta is 0.5, expected 1: did you take the root?"),
}


def outcome(
    notebook: NotebookNode | None = None, cells: dict[str, CellResult] | None = None, **more: Any
) -> Outcome:
    cells = CELLS if cells is None else cells
    return Outcome(notebook or build(), {n: c.points for n, c in cells.items()}, cells=cells, **more)


def row(student: str = "ada", **more: Any) -> Row:
    return Row(student, {"refit": 2.0, "noise": 0.0, "why": None}, more.pop("status", GRADED), **more)


def feedback(folder: Path, outcomes: dict[str, Outcome], **more: Any) -> dict[str, Page]:
    student = more.pop("row", row())
    pages = write_feedback(folder / "feedback", "week03", student, EXERCISES, outcomes, **more)
    return {path.stem: Page(path) for path in pages}


# feedback


def test_a_page_says_what_was_checked_and_what_went_wrong(tmp_path: Path) -> None:
    text = feedback(tmp_path, {"build": outcome()})["build"].text
    assert "Feedback for ada" in text and "week03 · build" in text and "2 of 4 points" in text
    assert "3.1 Refit 2 / 4" in text and "Exercise 3.2 · Noise 0 / 2 bonus" in text
    assert "Check 1 passed · these are the elites." in text
    assert "Check 2 not passed · mean, std A hidden check did not pass." in text
    assert "Check 1 not passed · beta beta is 0.5, expected 1: did you take the root?" in text
    assert "check_shape('std', refit(1), (1,))" in text, "the visible part can be read"
    assert "def refit(x): return x" in text and "scratch() 1" in text and "The rest of your notebook" in text
    assert text.index("3.1 Refit") < text.index("def refit") < text.index("3.2") < text.index("def noise")


@pytest.mark.parametrize("markers", [None, ("=== SECRET PART", "=== END SECRET PART")])
def test_nothing_of_a_hidden_check_is_shown(tmp_path: Path, markers: tuple[str, str] | None) -> None:
    notebook, more = build(), {}
    if markers:
        for cell in notebook.cells:
            cell.source = cell.source.replace("### BEGIN HIDDEN TESTS", f"# {markers[0]}")
            cell.source = cell.source.replace("### END HIDDEN TESTS", f"# {markers[1]}")
        more = {"hidden_markers": markers}
    page = feedback(tmp_path, {"build": outcome(notebook)}, **more)["build"]
    for secret in ("SECRET'", "4711", "815"):
        assert secret not in page.raw


def test_answers_comments_and_marks_by_hand(tmp_path: Path) -> None:
    comments = {("experiments", "why"): "Good,\nbut why <b>?", ("build", "refit"): "short"}
    found = feedback(tmp_path, {"build": outcome(), "experiments": outcome(answers(), {})}, comments=comments)
    text = found["experiments"].text
    assert "1. Planners why 3, to be marked" in text and "1 answer is still to be marked" in text
    assert "the question ## 1. Planners Which one wins?" in text and "Because x < y." in text
    assert "Comment: Good, but why <b>?" in text
    assert "Comment: short" in found["build"].text and "Comment: Good" not in found["build"].text
    marked = Row("ada", {"refit": 3.0, "noise": 0.0, "why": 2.5}, GRADED, penalty=0.5)
    found = feedback(tmp_path, {"build": outcome(), "experiments": outcome(answers(), {})}, row=marked)
    assert "why 2.5 / 3" in found["experiments"].text
    assert "A marker changed the points" in found["build"].text
    assert (
        "handed in late: 0.5 points less" in found["build"].text and "in all: 5 points" in found["build"].text
    )


def test_what_took_too_long_and_what_could_not_be_read(tmp_path: Path) -> None:
    slow = {**CELLS, "noise-test-1": CellResult(0, 2, TEST_TIMED_OUT, "Your code took too long.")}
    slow["refit-test-1"] = CellResult(1.5, 2, PARTIAL)
    text = feedback(tmp_path, {"build": outcome(cells=slow, status=TIMED_OUT)})["build"].text
    assert "took too long Your code took too long." in text.replace("· beta ", "")
    assert "longer than a submission may" in text and "partly right" in text and "1.5 / 2" in text
    broken = row(status=UNREADABLE, reason="build.ipynb: the file is not JSON")
    assert (
        "could not be graded: build.ipynb: the file is not JSON"
        in feedback(tmp_path, {}, row=broken)["build"].text
    )
    assert feedback(tmp_path, {}, row=row(status=MISSING)) == {}


def test_pictures_are_shown_and_nothing_else_is(tmp_path: Path) -> None:
    def shown(**data: str) -> NotebookNode:
        return new_output("display_data", data={key.replace("_", "/"): value for key, value in data.items()})

    outputs = [
        shown(image_png=picture(), text_plain="<Figure size 640x480 with 1 Axes>"),
        shown(image_jpeg=picture("JPEG")),
        shown(image_png=base64.b64encode(b"\x89PNG\r\n\x1a\nno picture").decode()),
        shown(image_png="https://example.org/x.png"),
        new_output("display_data", data={"image/svg+xml": "<svg onload='x()'/>", "text/plain": "a vector"}),
        new_output(
            "display_data", data={"text/html": "<script>x()</script>", "application/javascript": "x()"}
        ),
        shown(text_html="<video>", text_plain="<IPython.core.display.HTML object>"),
        new_output("stream", text="  0%|   \r 50%|#  \r100%|###\n\x1b[31mred\x1b[0m"),
        new_output("error", ename="ValueError", evalue="a < b", traceback=["<b>x</b>"]),
    ]
    page = feedback(tmp_path, {"experiments": outcome(answers("x", *outputs), {})})["experiments"]
    assert len(page.pictures) == 2
    assert "a film, a widget or other HTML" in page.text and "a vector" in page.text
    assert "100%|### red" in page.text and "50%" not in page.text and "Figure size" not in page.text
    assert "ValueError: a < b" in page.text and "example.org" not in page.raw and "x()" not in page.raw


def test_what_is_no_picture_or_too_large_a_one() -> None:
    large = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(large, "PNG")
    good = base64.b64decode(picture())
    for data in (b"\x89PNG\r\n\x1a\nno picture", large.getvalue(), good[:-20], b"GIF89a"):
        said = Pictures().image("image/png", base64.b64encode(data).decode())
        assert said == '<p class="soft small">(a picture that cannot be shown)</p>'
    assert "<img" in Pictures().image("image/png", picture())


NASTY = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            "</pre><img src=x onerror=alert(1)>",
            "&lt;script&gt;x&lt;/script&gt;",
            "# <iframe src=//evil.example>",
            '"><a href="javascript:x()">',
            "![x](http://evil.example/x.png)",
            "</style><!--",
            "\x00\x1b]8;;http://evil.example\x07\ud800",
        ]
    ),
)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(NASTY, min_size=8, max_size=8))
def test_whatever_is_handed_in_stays_text(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    code, own, heading, answer, said, flag, comment, name = texts
    cells = {**CELLS, "noise-test-1": CellResult(0, 2, FAILED, said, said)}
    outputs = [new_output("stream", text=own), new_output("error", ename=own, evalue=said, traceback=[])]
    found = {
        "build": outcome(build(code=code, own=own, heading=heading), cells, flags=(flag,)),
        "experiments": outcome(answers(answer, *outputs), {}),
    }
    folder = tmp_path_factory.mktemp("pages")
    student = row(name, reason=said)
    feedback(folder, found, row=student, comments={("build", "refit"): comment})  # Page looks at each element
    result = ClassResult("week03", EXERCISES, (student,), folder / "grades.csv")
    page = Page(write_overview(folder / "overview.html", result, {name: found}))
    assert "evil.example>" not in "".join(page.links)


# the class


LONG = """def refit(xs, k):
    pairs = sorted(zip(xs.tolist(), range(len(xs))), reverse=True)
    chosen = [index for value, index in pairs[:k] if value == value]
    total, squares = 0.0, 0.0
    for index in chosen:
        total = total + xs[index] / len(chosen)
        squares = squares + xs[index] ** 2 / len(chosen)
    return total, (squares - total**2) ** 0.5
"""
RENAMED = (
    LONG.replace("pairs", "both").replace("total", "m").replace("    return", "    # done\n    return", 1)
)
SHORT = "def refit(xs, k):\n    return xs.topk(k).values.mean(), xs.topk(k).values.std()\n"
OTHER = (
    "def refit(xs, k):\n    import numpy as np\n    order = np.argsort(-np.asarray(xs))[:k]\n    return order"
)


def test_solutions_that_resemble_each_other() -> None:
    several = {f"s{i}": {"refit": SHORT} for i in range(6)}
    found = alike({**several, "ada": {"refit": LONG}, "bob": {"refit": RENAMED}, "eve": {"refit": OTHER}})
    assert [(pair.students, pair.cells) for pair in found] == [(("ada", "bob"), ("refit",))]
    assert found[0].share == pytest.approx(1)
    assert alike({"ada": {"refit": LONG}, "bob": {"refit": RENAMED}}, {"refit": [LONG]}) == []
    assert alike({"ada": {"refit": SHORT}, "bob": {"refit": SHORT}}) == [], "it is too short to mean anything"
    everybody = {f"s{i}": {"refit": LONG} for i in range(20)}
    assert alike(everybody) == [], "what everybody writes means nothing"
    assert alike({"ada": {"refit": "def ("}, "bob": {"refit": "%%bash\nls"}}) == []


@pytest.mark.parametrize(
    "code", ["(" * 40_000, "1+" * 20_000 + "1", "%a\n" * 15_000, "lambda:" * 8_000 + "1"]
)
def test_code_that_no_parser_likes_is_passed_over(code: str) -> None:
    assert normal_form(code).strip() == ""


def test_a_notebook_of_very_many_cells_gives_a_page_that_opens(tmp_path: Path) -> None:
    notebook = build()
    cell = new_code_cell("x" * 50_000, outputs=[new_output("stream", text="y" * 20_000)])
    notebook.cells += [cell] * 500
    page = feedback(tmp_path, {"build": outcome(notebook)})["build"]
    assert len(page.raw) < 20_000_000 and "more are not shown here" in page.text


def test_what_makes_no_difference() -> None:
    first = 'def f(a: int) -> int:\n    """Doc."""\n    b = a + 1  # one more\n    return b'
    second = "def f( x ):\n\n    y=x+1\n    return y"
    assert normal_form(first) == normal_form(second) != normal_form(second.replace("1", "2"))


def class_result(folder: Path) -> tuple[ClassResult, dict[str, dict[str, Outcome]]]:
    failing = {
        **CELLS,
        "noise-test-1": CellResult(0, 2, FAILED, "beta is 0.7, expected 1: did you take the root?"),
    }
    slow = {**CELLS, "refit-test-1": CellResult(0, 2, TEST_TIMED_OUT, "Your code took too long.")}
    outcomes = {
        "ada": {"build": outcome(build(code=LONG), flags=("a cell was split",))},
        "bob": {"build": outcome(build(code=RENAMED), failing)},
        "carl": {"build": outcome(cells=slow, status=TIMED_OUT)},
    }
    rows = []
    for student, found in outcomes.items():
        pages = write_feedback(folder / "feedback" / student, "week03", row(student), EXERCISES, found)
        rows.append(row(student, pages=tuple(pages)))
    rows.append(row("dora", status=UNREADABLE, reason="build.ipynb is empty (0 bytes)"))
    rows.append(row("eve & co", status=MISSING, reason="nothing arrived"))
    return ClassResult("week03", EXERCISES, tuple(rows), folder / "grades.csv"), outcomes


def test_the_overview_of_a_class(tmp_path: Path) -> None:
    result, outcomes = class_result(tmp_path)
    page = Page(write_overview(tmp_path / "grades" / "week 03" / "overview.html", result, outcomes))
    text = page.text
    assert "5 students 3 with marks 2 points on average, of 7 3 answers to mark by hand" in text
    assert (
        "noise · 3 students lost points 3 beta is 0.5, expected 1" in text and "or with other numbers" in text
    )
    assert "3 (hidden check) SECRET is 1, expected 815 ada, bob, carl" in text, (
        "instructors see hidden checks"
    )
    assert (
        "Took too long carl refit-test-1" in text
        and "To be looked at" in text
        and "ada a cell was split" in text
    )
    assert "dora not readable: build.ipynb is empty (0 bytes)" in text and "Nothing arrived eve & co" in text
    assert "ada and bob: 100% of the shorter one's own code, in refit" in text
    targets = [(page.path.parent / unquote(link)).resolve() for link in page.links]
    assert targets == [path.resolve() for one in result.rows for path in one.pages]


def test_what_the_reference_has_is_no_sign(tmp_path: Path) -> None:
    result, outcomes = class_result(tmp_path)
    source = tmp_path / "source"
    source.mkdir()
    nbformat.write(build(code=LONG), source / "build.ipynb")
    page = Page(write_overview(tmp_path / "overview.html", result, outcomes, source))
    assert "resemble" not in page.text


def test_a_class_of_nobody(tmp_path: Path) -> None:
    result = ClassResult("week03", EXERCISES, (row("eve", status=MISSING),), tmp_path / "grades.csv")
    text = Page(write_overview(tmp_path / "overview.html", result, {})).text
    assert "1 student 0 with marks" in text and "Nothing arrived eve" in text


WATCHER = """<body>{frames}<script>
onload = () => {{
  const seen = [...document.querySelectorAll("iframe")].map(frame => {{
    const inner = frame.contentDocument.documentElement;
    return [frame.contentDocument.title, inner.scrollWidth - inner.clientWidth];
  }});
  document.body.textContent = "SEEN" + JSON.stringify(seen) + "SEEN";
}};
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: apt-get install chromium)")
def test_in_a_browser_nothing_runs_and_nothing_sticks_out(tmp_path: Path) -> None:
    script = "<script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\">"
    result, outcomes = class_result(tmp_path)
    long = "a" * 300 + " " + "sample_sequences(mean, std, low, high)  " * 20
    failed = {**CELLS, "noise-test-1": CellResult(0, 2, FAILED, long, long)}
    found = {
        "build": outcome(build(code=f"# {long}{script}", own=script, heading=f"# {long}"), failed),
        "experiments": outcome(answers(long + script, new_output("stream", text=long + script)), {}),
    }
    student = row("name-" * 20, reason=long)
    pages = write_feedback(tmp_path, "week03", student, EXERCISES, found)
    rows = (*result.rows, student)
    result = ClassResult("week03", EXERCISES, rows, tmp_path / "grades.csv")
    overview = write_overview(tmp_path / "overview.html", result, {**outcomes, student.student: found})
    frames = [
        f'<iframe src="{path.name}" style="width: {width}px; height: 900px"></iframe>'
        for path in (*pages, overview)
        for width in (375, 1200)
    ]
    (tmp_path / "watch.html").write_text(WATCHER.format(frames="".join(frames)), encoding="utf-8")
    command = [
        str(CHROMIUM),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
    ]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{tmp_path / 'watch.html'}"]
    dump = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    seen = json.loads(unescape(dump.split("SEEN")[1]))
    assert len(seen) == 6
    assert all(title.startswith("week03 · ") for title, _ in seen)
    assert [too_wide for _, too_wide in seen] == [0] * 6


def test_levels() -> None:
    assert levels([0, 0.5, 2, 3.999, 4, 5, None], 4) == [1, 1, 2, 2, 1]


def test_a_notebook_of_nothing_but_checks_has_a_page() -> None:
    assert _with_use([]) == []
    heading, cell = (NotebookNode(cell_type=kind, source=kind) for kind in ("heading", "code"))
    assert _with_use([heading, heading, cell, heading]) == [heading, cell]


def test_a_notebook_of_too_many_cells_is_not_read(tmp_path: Path) -> None:
    cells = [{"cell_type": "raw", "source": "", "metadata": {}}] * (MAX_CELLS + 1)
    path = tmp_path / "build.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    with pytest.raises(NotANotebookError, match="20001 cells, and at most 20000 are read"):
        read_content(path)
