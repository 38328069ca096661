"""The report as one HTML file that needs nothing else: no network, no other file, and for reading no script.

`render` and the macros of `templates/macros.html.j2` know no run; `sections.py` fills them with one.
"""

from orch_local.report.page.base import Page, Section, body, render
from orch_local.report.page.writing import write_page

__all__ = ["Page", "Section", "body", "render", "write_page"]
