"""Where host and workers write what they have to say."""

import logging
import logging.handlers
from pathlib import Path


def log_to(path: Path) -> None:
    """Everything goes to the file; failed invocations and the host's own words also to stderr."""
    path.parent.mkdir(parents=True, exist_ok=True)
    to_file = logging.handlers.RotatingFileHandler(path, maxBytes=20_000_000, backupCount=2, encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[to_file])
    for chatty in ("azure.core", "azure.functions", "azure.durable_functions", "azure.storage", "durabletask"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    to_stderr = logging.StreamHandler()
    to_stderr.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logging.getLogger("local.host").addHandler(to_stderr)
