"""The BentoML service: one loaded model behind the HTTP API and the page.

`bentoml serve` in the repository serves `models/bento.tar`; inside a Bento the same class serves the Bento's own files.

BentoML imports this module in two processes, the one that serves and its supervisor, which needs neither model nor page:
torch and Gradio are imported where they are used, or they would cost the supervisor a gigabyte, as long a start as the
server's, and seconds at its end, when Python collects what they made.
"""

import gc
import logging
import os
from pathlib import Path

import bentoml

from r1pipe.serving import api, telemetry
from r1pipe.serving.bundle import find

logger = logging.getLogger(__name__)

HOME = Path(__file__).resolve().parents[2]
"""The folder that holds this package: the repository, or a Bento's `src`."""

TOKEN = "R1PIPE_API_TOKEN"
"""The environment variable of the token that who asks must know; not set, everybody may ask."""

app = api.create_app(token=os.environ.get(TOKEN))


# BentoML's timeout is the last resort, above the API's own; of its access log ours has the lines, in JSON.
@bentoml.service(name="r1", workers=1, traffic={"timeout": 300}, logging={"access": {"enabled": False}})
@bentoml.asgi_app(app, path="/")
class R1:
    """Answers questions about rooms; the model is loaded once."""

    def __init__(self) -> None:
        """Load the packaged model; no request is taken before it has answered a question."""
        from r1pipe.serving import page
        from r1pipe.serving.served import ServedModel

        telemetry.log_json()
        bundle = find(HOME)
        self.served = ServedModel.load(bundle)
        self.served.check()
        api.attach(app, self.served)
        page.mount(app, lambda: self.served)
        # What is loaded stays: a full collection would go through all of it, and meanwhile nobody is answered.
        gc.collect()
        gc.freeze()
        logger.info("serving", extra={"fields": {"model": self.served.name, "bundle": str(bundle.root)}})

    def __is_ready__(self) -> bool:
        """Whether the model answers: BentoML's `/readyz` asks."""
        return self.served.is_ready()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """Answer what was asked before the end."""
        self.served.close()
