"""Write book/figure.svg, the picture in the README: the introduction's chart as its notebook stores it."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIGURE = ROOT / "book" / "figure.svg"


def stored_picture(root: Path = ROOT) -> str:
    """Return the SVG of the first chart in the introduction."""
    cells = json.loads((root / "book" / "intro.ipynb").read_text(encoding="utf8"))["cells"]
    pictures = [output["data"]["image/svg+xml"] for cell in cells for output in cell.get("outputs", ())
                if "image/svg+xml" in output.get("data", {})]  # fmt: skip
    return "".join(pictures[0])


if __name__ == "__main__":
    FIGURE.write_text(stored_picture(), encoding="utf8")
