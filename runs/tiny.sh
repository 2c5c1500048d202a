#!/usr/bin/env bash
# Minutes on two cores: a reader of rendered digits from nothing but the system's fonts, then its score on crops it has
# not seen. The same path as runs/en.sh, in small.
#
#   runs/tiny.sh [RUN]
set -euo pipefail
run=${1:-runs/out/tiny}
cd "$(dirname "$0")/.."
crnn=${CRNN:-.venv/bin/crnn}

[[ -f $run-valid/labels.tsv ]] || "$crnn" synth "$run-valid" --preset tiny --count 500 --seed 99
if [[ -f $run/last.ckpt && ! -f $run/model.onnx ]]; then
    "$crnn" train --resume --output "$run"
elif [[ ! -f $run/model.onnx ]]; then
    "$crnn" train --preset tiny --valid "$run-valid" --output "$run"
fi
"$crnn" evaluate "$run-valid" --model "$run"
