"""Run folders: what they hold, what may be written to or removed from them, their pictures."""

from pyrovae.runs.contents import (
    BLOCKS, CHECKPOINT, CONFIG, EVIDENCE, EVIDENCE_FILES, REPORT, RUN_FILES, TABLE, Blocks, about_model, clear,
    drop_blocks, drop_evidence, holds_run, load_evidence, read_config, read_metrics, read_notes,
    write_config, write_evidence, write_figures, write_metrics,
)
from pyrovae.runs.pictures import best_epoch, overview
from pyrovae.runs.saving import (
    MODEL, holds_program, load, save, saved_sha256, write_model, write_state,
)

__all__ = ["BLOCKS", "Blocks", "CHECKPOINT", "CONFIG", "EVIDENCE", "EVIDENCE_FILES", "REPORT", "TABLE", "MODEL", "RUN_FILES", "about_model", "best_epoch", "clear", "drop_blocks", "drop_evidence", "holds_program", "holds_run", "load", "load_evidence", "overview", "read_config", "read_metrics", "read_notes", "save", "saved_sha256", "write_config", "write_evidence", "write_figures", "write_metrics", "write_model", "write_state",]
