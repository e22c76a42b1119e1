"""Findings: the tool's sentence, the poster behind it, the paper's claims put to the data, one broken example."""

from kick_core.explorer import findings, frame

frame.page(findings.page)
