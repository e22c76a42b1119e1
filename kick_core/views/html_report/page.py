"""The file around a report: style, script, and a policy that allows these two and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from kick_core.views.markup import Safe, tag


def whole(title: str, body: Safe, states: dict[str, list[dict[str, Any]]]) -> str:
    """One HTML document. `states` is what the slider shows of every method; without any there is no script."""
    style, script = (Path(__file__).with_name(f"page.{kind}").read_text() for kind in ("css", "js"))
    allowed = f"style-src {_hash(style)}; img-src data:" + (f"; script-src {_hash(script)}" if states else "")
    policy = f"default-src 'none'; base-uri 'none'; form-action 'none'; {allowed}"
    safe = json.dumps(states, allow_nan=False).replace("<", "\\u003c").replace("\u2028", "").replace("\u2029", "")
    data = f'<script type="application/json" id="data">{safe}</script><script>{script}</script>' if states else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width">{tag("title", title)}<style>{style}</style></head>'
        f"<body><main>{body}</main>{data}</body></html>"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
