"""python examples/make_digits.py: writes examples/data/digits, 1,797 handwritten digits of 8 x 8 pixels as PNG files, a
folder for each class.

They ship with scikit-learn (a copy of the test set of the UCI "Optical Recognition of Handwritten Digits", CC BY 4.0).
"""

import shutil
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

TARGET = Path(__file__).parent / "data" / "digits"


def main() -> None:
    if TARGET.exists():
        return
    unfinished = TARGET.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = unfinished / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9375).astype("uint8")).save(path)  # from 0 to 16 to 0 to 255
    unfinished.rename(TARGET)
    print(f"{TARGET}: {len(digits.images)} digits")


if __name__ == "__main__":
    main()
