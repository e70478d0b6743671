"""What is said when a data set cannot be used."""

from collections.abc import Sequence

LISTED = 20


class DataError(ValueError):
    """The data cannot be used; the message says which files, and why."""

    @classmethod
    def listing(cls, title: str, problems: Sequence[str]) -> "DataError":
        """Names the first problems, and counts the rest."""
        lines = [title, *(f"  {problem}" for problem in problems[:LISTED])]
        if len(problems) > LISTED:
            lines.append(f"  … and {len(problems) - LISTED} more")
        return cls("\n".join(lines))
