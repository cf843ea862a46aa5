"""Processes for tests, forked from one that has imported torch and has one thread."""

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.support.preload"])
