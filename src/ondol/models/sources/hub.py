"""Model files of the Hugging Face Hub: from its cache on this machine, or over the network.

Uses ``huggingface_hub`` (imported late, its telemetry off), which resumes broken downloads. The Hub
is asked once per pull whether it answers, within a few seconds, so that a machine that cannot reach
it moves on to the next source at once. Nothing from the Hub is executed.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ondol.core.errors import DownloadFailed, HashMismatch
from ondol.models.catalogue import HubFile, ModelFile
from ondol.models.sources.base import Report, read_chunks

PROBE_SECONDS = 4.0
_SHA256_HEX = 64


def _hub() -> Any:
    """Import ``huggingface_hub`` with its telemetry switched off."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub

    return huggingface_hub


class HubCacheSource:
    """Reads what other programs have already fetched from the Hub; no network.

    ``cache`` is the folder that holds ``models--org--name``; ``None`` means the Hub library's own
    (``HF_HUB_CACHE``).
    """

    kind: Literal["hub_cache"] = "hub_cache"

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache

    def offers(self, model_id: str, file: ModelFile) -> bool:
        return file.hub is not None and self._find(file.hub) is not None

    def describe(self, model_id: str, file: ModelFile) -> str:
        return f"hub cache:{_name(file)}"

    def chunks(self, model_id: str, file: ModelFile, *, report: Report) -> Iterator[bytes]:
        found = self._find(file.hub) if file.hub else None
        if found is None:
            raise DownloadFailed(f"{file.name} is no longer in the Hub cache", hint="pull again")
        return read_chunks(found, report=report)

    def _find(self, file: HubFile) -> Path | None:
        found = _hub().try_to_load_from_cache(
            file.repo, file.path, cache_dir=self._cache, revision=file.revision
        )
        return Path(found) if isinstance(found, str) else None


class HubSource:
    """Fetches from the Hub into ``partial`` (where a broken download is carried on later)."""

    kind: Literal["hub"] = "hub"

    def __init__(self, partial: Path, *, endpoint: str | None = None) -> None:
        self._partial = partial
        self._endpoint = endpoint
        self._unreachable: str | None = None
        self._probed = False

    def offers(self, model_id: str, file: ModelFile) -> bool:
        return file.hub is not None

    def describe(self, model_id: str, file: ModelFile) -> str:
        return f"hub:{_name(file)}"

    def chunks(self, model_id: str, file: ModelFile, *, report: Report) -> Iterator[bytes]:
        if file.hub is None:
            raise DownloadFailed(f"{file.name} is not on the Hub", hint="use another source")
        hub = _hub()
        url = hub.hf_hub_url(
            file.hub.repo, file.hub.path, revision=file.hub.revision, endpoint=self._endpoint
        )
        self._require_reachable(url)
        try:
            self._check_etag(hub, url, file)
            path = hub.hf_hub_download(
                file.hub.repo,
                file.hub.path,
                revision=file.hub.revision,
                endpoint=self._endpoint,
                local_dir=self._partial / "hub",
                etag_timeout=PROBE_SECONDS,
                tqdm_class=_meter(hub, report),
            )
        except HashMismatch:
            raise
        except Exception as error:
            raise DownloadFailed(
                f"the Hub did not give {_name(file)}: {_first_line(error)}",
                hint="set HF_TOKEN if the repository is gated, or try again later",
            ) from error
        return read_chunks(Path(path), report=report)

    def _check_etag(self, hub: Any, url: str, file: ModelFile) -> None:
        """Refuse before the download where the Hub already names another SHA-256 (LFS etag)."""
        etag = hub.get_hf_file_metadata(url, timeout=PROBE_SECONDS).etag
        if file.sha256 and etag and len(etag) == _SHA256_HEX and etag != file.sha256:
            raise HashMismatch(
                f"{_name(file)} on the Hub has SHA-256 {etag}; the catalogue names {file.sha256}",
                hint="another source is tried; update Ondol if the model was re-published",
            )

    def _require_reachable(self, url: str) -> None:
        if not self._probed:
            self._unreachable = _why_unreachable(url)
            self._probed = True
        if self._unreachable is not None:
            raise DownloadFailed(
                f"the Hub does not answer: {self._unreachable}",
                hint="check the network, HTTPS_PROXY or HF_ENDPOINT",
            )


def _why_unreachable(url: str) -> str | None:
    """Ask once, in a thread of its own because name resolution knows no timeout."""
    answer: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=lambda: answer.put(_probe(url)), daemon=True).start()
    try:
        return answer.get(timeout=PROBE_SECONDS + 1)
    except queue.Empty:
        return f"no answer within {PROBE_SECONDS:.0f} s"


def _probe(url: str) -> str | None:
    import httpx

    try:
        httpx.head(url, timeout=PROBE_SECONDS)
    except Exception as error:
        return _first_line(error)
    return None


def _meter(hub: Any, report: Report) -> type[Any]:
    """Return a progress-bar class for the Hub library that reports instead of drawing."""
    bar: Any = hub.utils.tqdm

    class Meter(bar):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            self._arrived = int(options.get("initial") or 0)
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            self._arrived += int(n or 0)
            report(self._arrived)

    return Meter


def _name(file: ModelFile) -> str:
    return f"{file.hub.repo}/{file.hub.path}" if file.hub else file.name


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
