"""The BentoML service: one loaded model behind the HTTP API and the page.

`bentoml serve` in the repository serves `models/bento.tar`; inside a Bento the same class serves the Bento's own files.
"""

import logging
from pathlib import Path

import bentoml

from r1pipe.serving import api, page
from r1pipe.serving.bundle import find
from r1pipe.serving.served import ServedModel

logger = logging.getLogger(__name__)

HOME = Path(__file__).resolve().parents[2]
"""The folder that holds this package: the repository, or a Bento's `src`."""

app = api.create_app()
page.mount(app, lambda: api.attached(app))


@bentoml.service(name="r1", workers=1, traffic={"timeout": 300})
@bentoml.asgi_app(app, path="/")
class R1:
    """Answers questions about rooms; the model is loaded once."""

    def __init__(self) -> None:
        """Load the packaged model."""
        bundle = find(HOME)
        api.attach(app, ServedModel.load(bundle))
        logger.info("serving the model of %s", bundle.root)
