"""The API's documentation at `/docs`; Swagger UI comes from BentoML's own package, where FastAPI would fetch it from elsewhere."""

from pathlib import Path

import bentoml
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

PATH, FILES = "/docs", "/docs/files"
SWAGGER = Path(bentoml.__file__).parent / "_internal/server/static_content"


def add_docs(app: FastAPI) -> None:
    """Give an application without FastAPI's own pages its documentation."""
    app.mount(FILES, StaticFiles(directory=SWAGGER))
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=app.title,
        swagger_js_url=f"{FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{FILES}/swagger-ui.css",
        swagger_favicon_url=f"{FILES}/favicon-light-32x32.png",
    )

    async def docs() -> Response:
        """Swagger UI over the OpenAPI schema."""
        return page

    app.add_api_route(PATH, docs, include_in_schema=False)
