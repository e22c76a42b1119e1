"""No text that this program did not write reaches an element that would render it.

Read from the sources of app.py and pages/, so that a new page cannot forget it. Proven inert in the browser by
tests/browser/test_hostile.py; which elements are dangerous is measured in reliability.md, section 4.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    ROOT / "app.py",
    *sorted((ROOT / "pages").glob("*.py")),
    *sorted((ROOT / "kick_core" / "explorer").glob("*.py")),
]

RENDERS = {
    "write", "markdown", "title", "header", "subheader", "caption", "table", "metric", "error", "warning", "info",
    "success", "exception", "toast", "expander", "radio", "checkbox", "toggle", "popover", "tabs", "badge", "echo",
    "latex", "divider", "status", "spinner", "chat_message", "write_stream", "link_button",
}  # fmt: skip
"""Elements that render markdown: literals of this program only."""

LABELLED = {
    "button", "slider", "selectbox", "segmented_control", "pills", "number_input", "text_input", "page_link",
    "download_button",
}  # fmt: skip
"""Widgets whose label is markdown: the label must be a literal of this program or made of numbers."""

IMPORTS = {
    "streamlit", "pandas", "plotly", "kick_core.views", "kick_core.spec", "kick_core.errors", "kick_core.jobs",
    "kick_core.units",
    "kick_core.packs", "kick_core.explorer",
}  # fmt: skip
OURS = {
    "__future__",
    "base64",
    "collections",
    "contextlib",
    "contextvars",
    "dataclasses",
    "functools",
    "hashlib",
    "html",
    "tempfile",
    "itertools",
    "math",
    "pathlib",
    "re",
    "time",
    "typing",
    "urllib",
}

NUMBERS = {
    ("kick_core/explorer/findings.py", "See the {} that broke"),
}
"""f-strings in labels that hold nothing but numbers and literals, looked at one by one."""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call of something that looks like a Streamlit element, by its last name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr, node


def of_streamlit(call: ast.Call) -> bool:
    root = call.func
    while isinstance(root, ast.Attribute | ast.Call):
        root = root.value if isinstance(root, ast.Attribute) else root.func
    return isinstance(root, ast.Name) and root.id in (
        "st",
        "left",
        "middle",
        "right",
        "first",
        "second",
        "third",
        "fourth",
    )


def pattern(node: ast.expr) -> str | None:
    """A literal's text, an f-string with its holes as {}, or None."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in values)
        case ast.IfExp(body=body, orelse=orelse):
            return pattern(body) if pattern(orelse) else None
    return None


def is_literal(node: ast.expr) -> bool:
    match node:
        case ast.Constant():
            return True
        case ast.IfExp(body=body, orelse=orelse):
            return is_literal(body) and is_literal(orelse)
    return False


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rendering_elements_get_literals_only(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    for element, call in calls(path):
        if element not in RENDERS | LABELLED or not of_streamlit(call):
            continue
        given = [*call.args[:1], *(k.value for k in call.keywords if k.arg in ("label", "help", "caption", "text"))]
        for value in given:
            allowed = is_literal(value) or (name, pattern(value)) in NUMBERS or _is_label_of_ours(name, value)
            assert allowed, f"{name}:{call.lineno}: st.{element}({ast.unparse(value)}) may render text from results"


def _is_label_of_ours(name: str, value: ast.expr) -> bool:
    """Helpers that pass a label on; their own callers are looked at by the tests below."""
    return isinstance(value, ast.Name | ast.IfExp) and (name, ast.unparse(value)) in {
        ("kick_core/explorer/controls.py", "label"),
        ("kick_core/explorer/job_cards.py", "shown"),
        ("kick_core/explorer/artifacts.py", "_COLUMNS"),
    }


def test_helpers_with_labels_are_called_with_literals() -> None:
    helpers = {"recipe": 1, "button": 0}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="controls"), attr="recipe"), args=args):
                    assert is_literal(args[helpers["recipe"]])
                case ast.Call(func=ast.Attribute(value=ast.Name(id="job_cards"), attr="button"), args=args):
                    given = args[0]
                    name = str(path.relative_to(ROOT))
                    assert is_literal(given) or isinstance(given, ast.Name) or (name, pattern(given)) in NUMBERS


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_way_around(path: Path) -> None:
    source = path.read_text()
    name = str(path.relative_to(ROOT))
    for word in ("unsafe_allow_html", "unsafe_allow_javascript", "components.v1", "components.html", "iframe", "eval("):
        assert word not in source, f"{name} uses {word}"
    if name != "kick_core/explorer/safe.py":
        assert "st.html" not in source, f"{name}: text goes through kick_core/explorer/safe.py"
        assert not [n for n in ast.walk(ast.parse(source)) if _makes_safe(n, name)], f"{name} makes Safe text itself"


def _makes_safe(node: ast.AST, name: str) -> bool:
    """Safe(...) on anything but nothing, or on joined Safe pieces."""
    match node:
        case ast.Call(func=ast.Name(id="Safe"), args=[ast.Constant(value="")]):
            return False
        case ast.Call(func=ast.Name(id="Safe")):
            return True
    return False


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_import_only_what_they_may(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found = [f"{node.module}.{a.name}" if node.module == "kick_core" else node.module for a in node.names]
        for name in found:
            allowed = name.partition(".")[0] in OURS or any(name == i or name.startswith(f"{i}.") for i in IMPORTS)
            assert allowed, f"{path.name} imports {name}"


def test_the_door_escapes() -> None:
    from kick_core.explorer.safe import tag, unmarked

    hostile = "<script>\"'&"
    assert str(tag("p", hostile, title=hostile)) == (
        '<p title="&lt;script&gt;&quot;&#x27;&amp;">&lt;script&gt;&quot;&#x27;&amp;</p>'
    )
    assert unmarked("a ![x](y) :red[z] $1$") == r"a \!\[x\]\(y\) \:red\[z\] \$1\$"
    assert str(tag("div", tag("b", "x"), cls="a")) == '<div class="a"><b>x</b></div>'
