"""Writes docs/programs.md, the table of all programs: `make programs`."""

from pathlib import Path

from programs import CASES, FAMILIES

PAGE = Path(__file__).parents[2] / "docs" / "programs.md"
HEAD = """# Programs of other people

{count} programs in the patterns of Pyro's own examples, tutorials and `contrib`; each is a test
(`tests/programs/`). {right} are accepted: every estimator named here gives log P(X) as the
independent answer does, within 4 standard errors, in blocks of any size. {refused} are refused in
one sentence, since no number would be right.

What holds for yours: [your own program](your_program.md).
"""

SINGLY = ", one particle at a time"


def page() -> str:
    """Returns the page: a table for each family of programs."""
    refused = sum(bool(case.refused) for case in CASES)
    parts = [HEAD.format(count=len(CASES), right=len(CASES) - refused, refused=refused)]
    for family in FAMILIES:
        title = (family.__doc__ or "").strip().rstrip(".")
        rows = [_row(case) for case in CASES if case.make.__module__ == family.__name__]
        header = "| program | as in | outcome | against |\n|---|---|---|---|"
        parts.append("\n".join([f"## {title}\n", header, *rows, ""]))
    return "\n".join(parts)


def _row(case) -> str:
    outcome, answer = f"refused: {case.refused}", ""
    if not case.refused:
        outcome, answer = f"right: {', '.join(case.estimators)}{SINGLY * case.singly}", case.answer
        if case.without:
            outcome += f"; refused: {', '.join(case.without)}"
    name = f"`{case.name}` {case.what.rstrip('.')}"
    cells = [name, case.pattern, outcome, answer]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
