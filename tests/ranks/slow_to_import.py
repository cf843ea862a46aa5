"""A module of trials that takes its time: by itself, or in a thread, as downloads do, which nobody can interrupt."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hpstudy import Trial

Path(os.environ["TEST_FOLDER"], "importing").touch()
if "TEST_DOWNLOADS" in os.environ:
    with ThreadPoolExecutor() as pool:
        pool.submit(time.sleep, 600).result()
time.sleep(600)


def square(trial: Trial) -> float:
    return float(trial.params["x"] ** 2)
