"""Triggers. BLUEPRINTS is everything Azure can call."""

from functions import blobs, timers
from functions.activities import import_job as import_activities
from functions.activities import sync_job as sync_activities
from functions.api import triggers
from functions.orchestrators import import_job as import_orchestrator
from functions.orchestrators import sync_job as sync_orchestrator

BLUEPRINTS = (
    triggers.bp,
    blobs.bp,
    timers.bp,
    import_orchestrator.bp,
    import_activities.bp,
    sync_orchestrator.bp,
    sync_activities.bp,
)
