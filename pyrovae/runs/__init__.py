"""Run folders: what they hold, what may be written to or removed from them, their pictures."""

from pyrovae.runs.accuracy import accuracy
from pyrovae.runs.blocks import BLOCKS, Blocks
from pyrovae.runs.config import (
    CONFIG,
    about_model,
    about_training,
    read_config,
    read_metrics,
    read_notes,
    write_config,
    write_metrics,
)
from pyrovae.runs.contents import (
    CHECKPOINT,
    EVIDENCE,
    EVIDENCE_FILES,
    REPORT,
    RUN_FILES,
    TABLE,
    clear,
    drop_blocks,
    drop_evidence,
    holds_run,
    load_evidence,
    write_evidence,
    write_figures,
)
from pyrovae.runs.loading import Run, read_run
from pyrovae.runs.pictures import best_epoch
from pyrovae.runs.saving import (
    MODEL,
    holds_program,
    load,
    save,
    saved_sha256,
    write_model,
    write_state,
)

__all__ = [
    "BLOCKS",
    "Blocks",
    "CHECKPOINT",
    "CONFIG",
    "EVIDENCE",
    "EVIDENCE_FILES",
    "REPORT",
    "TABLE",
    "MODEL",
    "RUN_FILES",
    "Run",
    "about_model",
    "accuracy",
    "about_training",
    "best_epoch",
    "clear",
    "drop_blocks",
    "drop_evidence",
    "holds_program",
    "holds_run",
    "load",
    "load_evidence",
    "read_config",
    "read_metrics",
    "read_notes",
    "read_run",
    "save",
    "saved_sha256",
    "write_config",
    "write_evidence",
    "write_figures",
    "write_metrics",
    "write_model",
    "write_state",
]
