"""The viewer's answers, read from a folder in which nothing is written.

Nothing that is asked for names a file: runs, data sets and studies are asked for by the names that the catalogue gave
them, moments by their number.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from progan.data.store.pyramid import ImagePyramid
from progan.sampling.images import class_names
from progan.support.errors import UserError
from progan.support.plain_files import read_plain
from progan.support.run_files import RunFolder
from progan.view.catalogue import Catalogue
from progan.view.explore import Explorer, parse_wish, picture_of, thumbnail
from progan.view.guard import HEADERS, Guard
from progan.view.runs import config_differences, details

PICTURE_BYTES = 2**27
THUMBNAIL = 256  # pixels
POLL_S = 1.0
KEPT_THUMBNAILS = 500
TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html; charset=utf-8"}


class Viewer:
    """The answers. folder: what is viewed; data: data sets elsewhere, whose images are searched too."""

    def __init__(self, folder: Path, data: tuple[Path, ...] = (), device: str = "auto") -> None:
        self.catalogue = Catalogue(folder, data)
        self.explorer = Explorer(device)
        self._thumbnails: dict[tuple[Path, int], bytes] = {}
        self._newest: dict[str, int] = {}  # of each visitor's requests for pictures
        self._drawing = asyncio.Lock()

    def app(self, secret: str, hosts: set[str] | None) -> ASGIApp:
        """The whole application, guarded."""
        run = "/runs/{id:str}"
        routes = [
            Route("/", _page),
            Route("/pages/{name:str}", _page),
            Route("/events", self.events),
            Route("/differences", _json(self.differences)),
            Route(run, _json(self.run)),
            Route(run + "/fakes/{nimg:int}", self.fakes),
            Route(run + "/reals", self.reals),
            Route(run + "/thumbnail/{nimg:int}", self.thumbnail),
            Route(run + "/generators/{nimg:int}", _json(self.generator)),
            Route(run + "/generators/{nimg:int}/picture", self.picture),
            Route(run + "/generators/{nimg:int}/branches", self.branches),
            Route(run + "/generators/{nimg:int}/neighbours", _json(self.neighbours)),
            Route("/data/{id:str}", _json(self.data)),
            Route("/data/{id:str}/sheet", self.sheet),
            Route("/data/{id:str}/images/{resolution:int}/{number:int}", self.image),
            Route("/studies/{id:str}", _json(self.study)),
            Route("/studies/{id:str}/pictures/{name:str}", self.study_picture),
        ]
        return Guard(Starlette(routes=[Mount(f"/{secret}", routes=routes)]), secret, hosts)

    # Facts.

    def run(self, request: Request) -> dict[str, Any]:
        """All of a run."""
        path = self._run(request)
        data = self.catalogue.data_of(path)
        return details(path) | {"dataId": data and data[0], "name": self.catalogue.name(path)}

    def differences(self, request: Request) -> list[list[Any]]:
        """The fields in which the configs of two to four runs are not alike."""
        ids = request.query_params.get("runs", "").split(",")
        if not 2 <= len(ids) <= 4:
            raise HTTPException(400, "give two to four runs")
        return config_differences([details(self.catalogue.run(one))["config"] for one in ids])

    def generator(self, request: Request) -> dict[str, Any]:
        """What a snapshot can draw, and what its classes are called."""
        about = self.explorer.about(self._generator(request))
        found = self.catalogue.data_of(self._run(request)) if about["classes"] else None
        names = None if found is None else ImagePyramid.open(found[1]).label_names
        return about | {"classNames": class_names(names, about["classes"])}

    def data(self, request: Request) -> dict[str, Any]:
        """What a data set says about itself."""
        return self.catalogue.describe_data(request.path_params["id"])

    def study(self, request: Request) -> dict[str, Any]:
        """A study's table, pictures, and runs."""
        return self.catalogue.describe_study(request.path_params["id"])

    def neighbours(self, request: Request) -> dict[str, Any]:
        """The training images that are nearest to a picture."""
        found = self.catalogue.data_of(self._run(request))
        if found is None:
            raise HTTPException(404, "the data set of this run is not in this folder; give it with --data")
        path = self._generator(request)
        wish = parse_wish(dict(request.query_params), self.explorer.about(path)["stage"])
        data = ImagePyramid.open(found[1])
        distances, numbers, at = self.explorer.neighbours(path, wish, data)
        return {"data": found[0], "resolution": data.resolution, "at": at, "images": len(data)} | {
            "found": [{"number": n, "distance": round(d, 2)} for n, d in zip(numbers, distances, strict=True)]
        }

    # Pictures.

    async def fakes(self, request: Request) -> Response:
        """The grid of generated images at a moment."""
        path = self._run(request) / f"fakes-{request.path_params['nimg']:09d}.png"
        return await run_in_threadpool(self._file, path)

    async def reals(self, request: Request) -> Response:
        """The grid of real images."""
        return await run_in_threadpool(self._file, RunFolder(self._run(request)).reals)

    async def thumbnail(self, request: Request) -> Response:
        """A corner of the grid of generated images."""
        path = self._run(request) / f"fakes-{request.path_params['nimg']:09d}.png"

        def make() -> Response:
            content = self._read(path)
            key = (path, path.stat().st_mtime_ns)
            if key not in self._thumbnails:
                self._thumbnails[key] = _or_404(lambda: thumbnail(content, THUMBNAIL))
                while len(self._thumbnails) > KEPT_THUMBNAILS:
                    self._thumbnails.pop(next(iter(self._thumbnails)))
            return _png(self._thumbnails[key])

        return await run_in_threadpool(make)

    async def picture(self, request: Request) -> Response:
        """Generated images side by side, `columns` in a row."""
        columns = max(1, min(64, _number(request.query_params, "columns", 1)))
        return await self._drawn(request, lambda path, wish: self.explorer.draw(path, wish, columns))

    async def branches(self, request: Request) -> Response:
        """Older and newer layers' picture, and their blend."""
        return await self._drawn(request, self.explorer.branches)

    async def sheet(self, request: Request) -> Response:
        """The contact sheet of a data set."""
        sheet = self.catalogue.sheet
        return _png(await run_in_threadpool(_or_404, lambda: sheet(request.path_params["id"])))

    async def image(self, request: Request) -> Response:
        """One image of a data set."""
        data = ImagePyramid.open(self.catalogue.data(request.path_params["id"]))
        number, resolution = request.path_params["number"], request.path_params["resolution"]
        return _png(_or_404(lambda: picture_of(data, number, resolution)))

    async def study_picture(self, request: Request) -> Response:
        """A picture of a study's report."""
        path = self.catalogue.study_picture(request.path_params["id"], request.path_params["name"])
        return await run_in_threadpool(self._file, path)

    # News.

    async def events(self, request: Request) -> Response:
        """Server-sent events: the list of everything when it changes. Costs nothing while nobody listens."""

        async def news() -> AsyncIterator[bytes]:
            before = ""
            while True:
                now = json.dumps(await run_in_threadpool(self.catalogue.overview))
                if now != before:
                    yield f"data: {now}\n\n".encode()
                else:
                    yield b":\n\n"  # finds out whether anybody still listens
                before = now
                await asyncio.sleep(POLL_S)

        return StreamingResponse(news(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    # What they share.

    def _run(self, request: Request) -> Path:
        return self.catalogue.run(request.path_params["id"])

    def _generator(self, request: Request) -> Path:
        path = RunFolder(self._run(request)).snapshots / f"generator-{request.path_params['nimg']:09d}.safetensors"
        self.catalogue.check_inside(path)
        return path

    async def _drawn(self, request: Request, draw: Callable[..., bytes]) -> Response:
        """A picture, if no newer wish of the same visitor came in while this one waited for its turn."""
        fields = dict(request.query_params)
        visitor, turn = fields.get("visitor", "")[:64], _number(fields, "turn", 0)
        self._newest[visitor] = max(turn, self._newest.get(visitor, 0))
        path = self._generator(request)
        async with self._drawing:
            if visitor and turn < self._newest[visitor]:
                return Response(status_code=204, headers=HEADERS)

            def make() -> bytes:
                return _or_404(lambda: draw(path, parse_wish(fields, self.explorer.about(path)["stage"])))

            content = await run_in_threadpool(make)
        if len(self._newest) > 1000:
            self._newest.clear()
        return _png(content, "no-store")

    def _file(self, path: Path) -> Response:
        return _png(self._read(path))

    def _read(self, path: Path) -> bytes:
        self.catalogue.check_inside(path)
        try:
            content = read_plain(path, PICTURE_BYTES)
        except OSError:
            raise HTTPException(404) from None
        if not content.startswith(b"\x89PNG"):
            raise HTTPException(404, "this picture cannot be read")
        return content


async def _page(request: Request) -> Response:
    """A file of the pages: the viewer's own, or a widget of the exported page."""
    name = request.path_params.get("name", "index.html")
    for room in ("progan.view", "progan.export"):
        folder = resources.files(room).joinpath("pages" if room == "progan.view" else "page")
        names = {entry.name for entry in folder.iterdir()}
        kind = TYPES.get(os.path.splitext(name)[1])
        if name in names and kind and (room == "progan.view" or name != "page.html"):
            content = folder.joinpath(name).read_bytes()
            return Response(content, media_type=kind, headers={**HEADERS, "Cache-Control": "no-cache"})
    raise HTTPException(404)


def _number(fields: Mapping[str, str], name: str, default: int) -> int:
    word = fields.get(name, str(default))
    if not word.isdecimal() or len(word) > 15:
        raise HTTPException(400, f"{name}: is a number")
    return int(word)


def _json(answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
    async def respond(request: Request) -> Response:
        content = await run_in_threadpool(_or_404, lambda: answer(request))
        return JSONResponse(content, headers={**HEADERS, "Cache-Control": "no-store"})

    return respond


def _or_404(make: Callable[[], Any]) -> Any:
    """What is made, or the sentence of what the user, or a file, has wrong."""
    try:
        return make()
    except UserError as error:
        raise HTTPException(404, str(error)) from None
    except FileNotFoundError:
        raise HTTPException(404, "it is no longer there") from None


def _png(content: bytes, cache: str = "private, max-age=5") -> Response:
    return Response(content, media_type="image/png", headers={**HEADERS, "Cache-Control": cache})
