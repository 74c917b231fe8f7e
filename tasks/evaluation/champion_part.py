"""The part of report.html that only the gate can fill: what changes against the champion.

The report is signed with the bundle and knows no champion. Two marks in it say where that part
is. Names and values in the page are escaped, so nothing but the template can write a mark.
"""

BEGIN, END = "<!-- champion -->", "<!-- /champion -->"


def filled(report: str, part: str) -> str | None:
    """The report with `part`, markup, in that place; None for a report from before the marks."""
    head, begun, rest = report.partition(BEGIN)
    _, ended, tail = rest.partition(END)
    if not (begun and ended):
        return None
    return f"{head}{BEGIN}\n{part}\n{END}{tail}"
