"""The allocator settings: glibc accepts them, and other systems are unaffected."""

import sys

import pytest

from foveola.training import memory


def test_glibc_accepts_all_three_settings(monkeypatch):
    if not sys.platform.startswith("linux"):
        pytest.skip("needs Linux with glibc")
    results, real = [], memory.ctypes.CDLL

    class RecordingLibrary:
        def __init__(self, library):
            self.mallopt = lambda name, value: results.append(real(library).mallopt(name, value))

    monkeypatch.setattr(memory.ctypes, "CDLL", RecordingLibrary)
    memory.keep_freed_memory()
    assert results == [1, 1, 1]


def test_other_systems_are_unaffected(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    monkeypatch.setattr(memory.ctypes, "CDLL", None)
    memory.keep_freed_memory()
