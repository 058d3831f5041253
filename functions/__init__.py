"""Triggers. BLUEPRINTS is everything Azure can call."""

from functions import blobs, timers
from functions.activities import import_job as import_activities
from functions.api import triggers
from functions.orchestrators import import_job as import_orchestrator

BLUEPRINTS = (triggers.bp, blobs.bp, timers.bp, import_orchestrator.bp, import_activities.bp)
