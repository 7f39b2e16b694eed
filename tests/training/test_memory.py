"""The allocator's setting is a matter of speed; here, that it is accepted where glibc is, and harmless elsewhere."""

import sys

import pytest

from foveola.training import memory


def test_glibc_accepts_all_three_settings(monkeypatch):
    if not sys.platform.startswith("linux"):
        pytest.skip("glibc is Linux's")
    answers, real = [], memory.ctypes.CDLL

    class Recorded:
        def __init__(self, library):
            self.mallopt = lambda name, value: answers.append(real(library).mallopt(name, value))

    monkeypatch.setattr(memory.ctypes, "CDLL", Recorded)
    memory.keep_freed_memory()
    assert answers == [1, 1, 1]


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    monkeypatch.setattr(memory.ctypes, "CDLL", None)
    memory.keep_freed_memory()
