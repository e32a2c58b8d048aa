#!/usr/bin/env bash
# Run in tests/test_conf.py on a file that ends as Quay's does; not run in Quay's container here.
# Mount it as conf/init/zz_quay_rescan.sh: Quay runs the scripts there in order, the one that writes
# its supervisord.conf among them, and then starts supervisord. This one adds our programs to it.
set -euo pipefail

programs="${QUAY_RESCAN:-/opt/quay-rescan}/conf/supervisord.conf"
target="${QUAYCONF:-/quay-registry/conf}/supervisord.conf"

# Quay's file ends without a newline.
grep -q '^\[program:rescan-' "$target" || { echo; cat "$programs"; } >>"$target"
