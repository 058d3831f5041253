"""Files dropped into the uploads container become jobs. The trigger only names the file; activities stream it."""

import json
import logging

import azure.durable_functions as df
import azure.functions as func

from functions.durable import starter
from functions.runtime import runtime
from shared.services.accept_import import accept_blob
from shared.services.dispatch_jobs import dispatch
from shared.services.record_poison import record_poison
from shared.settings import settings

bp = df.Blueprint()
log = logging.getLogger(__name__)


@bp.blob_trigger(
    arg_name="blob",
    path=f"{settings().uploads_container}/{{name}}",
    connection="UploadsStorage",
    source=settings().blob_trigger_source,  # pyright: ignore[reportArgumentType]  # validated by the settings
)
@bp.durable_client_input(client_name="client")
async def on_upload(blob: func.InputStream, client: df.DurableFunctionsClient) -> None:
    """Queue the job of a file that arrived; its content is not touched here."""
    now = await runtime()
    _, _, name = (blob.name or "").partition("/")
    await accept_blob(now.database, now.blobs, now.settings, name=name)
    await dispatch(now.database, starter(client), concurrency=now.settings.job_concurrency)


@bp.queue_trigger(arg_name="message", queue_name="webjobs-blobtrigger-poison", connection="UploadsStorage")
async def on_poison_upload(message: func.QueueMessage) -> None:
    """A file whose trigger failed five times becomes a failed job, so that somebody sees it."""
    now = await runtime()
    told = json.loads(message.get_body())
    await record_poison(now.database, container=told["ContainerName"], name=told["BlobName"], etag=told.get("ETag", ""))
