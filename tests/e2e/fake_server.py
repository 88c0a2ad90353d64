"""``ondol serve`` over fake models, as a process of its own: ``python fake_server.py PORT``."""

from __future__ import annotations

import sys

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.core.events import Observer
from ondol.core.settings import Settings, load_settings
from ondol.server.app import serve


def fake_container(settings: Settings, observer: Observer) -> Container:
    return Container.open(settings, parts=Parts(keywords=False, fake=True), observer=observer)


if __name__ == "__main__":
    serve(load_settings(flags={"server.port": int(sys.argv[1])}), opener=fake_container)
