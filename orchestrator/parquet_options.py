"""How a compacted file of epoch rows is laid out, so that 20 million rows are read in a fraction of a second.

What decides it (benchmarks/ledger_reading.py):

- Small row groups of whole runs: what is decoded is still in the caches when it is worked on. 65,536 rows read twice as
  fast as a million, in a third of the memory; a run that two row groups share is put together first, by
  copying its whole row group.
- Columns that every phase table reads are not compressed: the last digits of a loss are noise, and taking even a fast
  codec off them costs more time than they shrink. All others are, as only `Ledger.load` reads them.
- A dictionary serves values that recur: ids, evaluations, times. For values that do not, Arrow would try one, give up
  at its first megabyte, and have written both.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.analysis.run_metrics import NEEDED_COLUMNS
from workers.schema import RECURRING_COLUMNS, ROWS

ROW_GROUP_ROWS = 1 << 16

OPTIONS: dict[str, Any] = {
    "compression": {name: "none" if name in NEEDED_COLUMNS else "zstd" for name in ROWS.names},
    "compression_level": {name: 1 for name in ROWS.names if name not in NEEDED_COLUMNS},
    "use_dictionary": list(RECURRING_COLUMNS),
}


def write_compacted(table: pa.Table, sink: Any) -> None:
    """Write epoch rows (schema ROWS, sorted by run and evaluation) as one file; `sink` is a path or a binary stream."""
    with pq.ParquetWriter(sink, table.schema, **OPTIONS) as writer:
        for start, end in pairwise(_cuts(table)):
            writer.write_table(table.slice(start, end - start), row_group_size=max(1, end - start))


def _cuts(table: pa.Table) -> list[int]:
    """Rows at which row groups begin, and the end. Groups are of about one size and hold whole runs, so that no run has
    to be put together again."""
    begins = np.append(np.flatnonzero(table["evaluation"].to_numpy() == 0), table.num_rows)
    groups = max(1, round(table.num_rows / ROW_GROUP_ROWS))
    wanted = np.linspace(0, table.num_rows, groups + 1)
    return [0, *np.unique(begins[np.searchsorted(begins, wanted[1:])]).tolist()]
