#!/usr/bin/env bash
# The one path to the bundled English models: rendered words and real crops in, src/crnn/weights/MODEL out.
#
#   runs/en.sh DATA [MODEL] [RUN]      resumes when called again
#
# MODEL is en; or en-fast, which starts from the bundled en; or en-tiny, whose teacher it is, and which then reads before it.
#
# On two cores with AVX-512 and bf16 en took 2 hours 21 minutes, scores included (92.3 % of the held-out words right); with
# AMX it is about the same, and en-fast three quarters of an hour; with AVX2 alone eight times that. The published ones
# had more steps, in several parts that were averaged (93.8 and 92.7 %), en-tiny fewer with its teacher: docs/experiments.md
#
# DATA holds NAME_train.zip (images/ and labels.tsv each) for the six sources below and fonts-latin.txt with the Debian
# packages of the faces: apt-get install --no-install-recommends $(cat fonts-latin.txt). The words are those of wordfreq.
set -euo pipefail
data=$(realpath "${1:?usage: runs/en.sh DATA [MODEL] [RUN]}")
model=${2:-en}
run=${3:-runs/out/$model}
cd "$(dirname "$0")/.."
crnn=${CRNN:-.venv/bin/crnn}
python=$(dirname "$(command -v "$crnn")")/python

mkdir -p "$(dirname "$run")"
sources=(iiit5k svt icdar03 icdar15 funsd sroie)
{
    echo "train = ["
    # Weights: share among the real crops. Labels of svt and sroie are capitals whatever is printed.
    for each in "iiit5k 8 false" "svt 1 true" "icdar03 3 false" "icdar15 12 false" "funsd 8 false" "sroie 4 true"; do
        read -r name weight fold <<<"$each"
        echo "  { path = \"$data/${name}_train.zip\", split = \"train\", weight = $weight, fold_case = $fold },"
    done
    echo "]"
    echo "valid = ["
    for each in "iiit5k false" "svt true" "icdar03 false" "icdar15 false" "funsd false" "sroie true"; do
        read -r name fold <<<"$each"
        echo "  { path = \"$data/${name}_train.zip\", split = \"valid\", fold_case = $fold },"
    done
    echo "]"
} >"$run.toml"

if [[ -f $run/last.ckpt && ! -f $run/model.onnx ]]; then
    "$crnn" train --resume --output "$run"
elif [[ ! -f $run/model.onnx ]]; then
    taught=()
    [[ $model == en-tiny ]] && taught=(--set teacher=en)
    "$crnn" train --preset "$model" --config "$run.toml" "${taught[@]}" --output "$run"
fi

zips=("${sources[@]/#/$data/}")
zips=("${zips[@]/%/_train.zip}")
if [[ $model == en-tiny ]]; then  # too small to gain by eight bits
    "$crnn" export "$run" "src/crnn/weights/$model" --format folder
else
    "$crnn" export "$run" "src/crnn/weights/$model" --precision int8 "${zips[@]/#/--data=}"  # in half precision as well
fi
if [[ $model == en ]]; then
    "$python" - "src/crnn/weights/$model" <<'END'
import dataclasses, pathlib, sys
from crnn import checkpoint

card = dataclasses.replace(checkpoint.load_card(sys.argv[1]), first="en-tiny")
pathlib.Path(sys.argv[1], "model.json").write_text(card.to_json() + "\n", "utf-8")
END
fi
"$python" runs/scores.py "$model"  # no scores of training; checksums: without them no bundled model is read
for protocol in raw 36; do
    "$crnn" evaluate "${zips[@]}" --split valid --protocol "$protocol" --model "$model" --json >"$run-$protocol.json"
    "$python" runs/scores.py "$model" "$run-$protocol.json"
done
"$crnn" models
"$crnn" evaluate "${zips[@]}" --split valid --protocol 36 --model "$model" --precision bf16
