"""Python imports a module of this name at its start: chunks of few rows, so that a short run has many."""

from orch_local.store import store

store.FLUSH_ROWS = 10
