"""Python imports this by itself where `hook/` is on PYTHONPATH: the same tracer in Foveate and in every peer.

With BENCH_TRACE=file.jsonl, one JSON line where the first training forward begins (`begin`), for each one (`forward`: rows, positions, real
tokens, samples), for each scalar that gradients are computed of (`loss`), and for each optimizer step (`step`: wall clock, CPU seconds of
this process and its children, peak resident bytes). With BENCH_COUNT=N, steps 2 to N run under counters of FLOPs and of live
tensor bytes (`count`), which make them slow: such a run is not timed, and ends after them.

The rule for a real token is the same for all: its id is not the padding token's, which no text holds. Rows without input ids go by their
attention mask. A packed row holds as many samples as its positions start anew.
"""

import os

if os.environ.get("BENCH_TRACE"):
    import sys

    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import mends
    import tracer

    mends.install(tracer.HOOKS)
    tracer.log(event="start")
