"""The report as its reader sees it: text, tables, and the numbers in them."""

import re
from html.parser import HTMLParser

import pytest


class Page(HTMLParser):
    """The text of a page, and each table as rows of the text of cells."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tables, self.inside = "", [], False
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.inside = True
        self.text += " "

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self.inside:
            self.tables[-1][-1][-1] += data

    def table(self, head: str) -> list[list[str]]:
        """The rows below the head of the one table that has this in its head."""
        (found,) = [table for table in self.tables if head in "|".join(table[0])]
        return found[1:]

    def numbers(self, pattern: str) -> list[float]:
        """Those that the groups of a pattern match in the text."""
        found = re.search(pattern, self.text)
        assert found, pattern
        return [float(group) for group in found.groups()]


def shown(cell: str) -> list[float]:
    """The numbers of a cell, shares in percent as they are."""
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", cell)]


def percent(share: float) -> float:
    """What a share looks like on the page, for a comparison."""
    return pytest.approx(100 * share, abs=0.0500001)  # one digit is shown
