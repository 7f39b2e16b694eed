"""A project in an empty folder, and its application without a port."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from studio_pictures import encode, picture

from foveola.serving.settings import Settings
from foveola.teaching.app import create_app
from foveola.teaching.project import Project
from foveola.teaching.studio import Studio


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Nobody waits until a disk has written: no test cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "pictures"


@pytest.fixture
def project(folder) -> Iterator[Project]:
    """A project with the classes cup and mug, three pictures in the first."""
    project = Project(folder)
    for name in ("cup", "mug"):
        project.add_class(name)
    for seed in range(3):
        project.add("cup", encode(picture(seed)), ".png")
    yield project
    project.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., TestClient]]:
    """A client of the application of a project, with settings, without training and model."""
    with ExitStack() as stack:

        def application(project: Project, **settings: object) -> TestClient:
            app = create_app(Studio(project, Settings(**settings)))
            client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
            return stack.enter_context(client)

        yield application


@pytest.fixture
def client(project, serve) -> TestClient:
    return serve(project)
