"""A page of the explorer in Streamlit's own test harness, over the cache that KICK_CACHE names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[1]
HOME = "pages/home.py"


def run(page: str = HOME, *, timeout: int = 60, **query: str) -> AppTest:
    """The page under these query parameters; fails where the page does."""
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=timeout)
    for part in ("later-panels", "later-popularity", "later-sizes"):  # as if somebody had scrolled down to them
        app.session_state[part] = True
    if page != HOME:
        app.run()
        app.switch_page(page)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception, app.exception
    return app


def charts(app: AppTest) -> dict[str, Any]:
    """What every chart draws, by its key."""
    return {chart.proto.id.split("-")[-1]: json.loads(chart.proto.spec) for chart in app.get("plotly_chart")}


def address(app: AppTest) -> dict[str, str]:
    """What the page writes into the address bar."""
    written = [json.loads(one.proto.json) for one in app.get("bidi_component") if "query" in one.proto.json]
    return dict(parse_qsl(written[-1]["query"]))
