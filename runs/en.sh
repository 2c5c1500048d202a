#!/usr/bin/env bash
# The one path to the bundled English model: rendered words and real crops in, src/crnn/weights/en out.
#
#   runs/en.sh DATA [RUN]      about 150 minutes on two cores with AVX-512 bf16; resumes when called again. The published
#                               weights had as many steps in six parts: docs/experiments.md
#
# DATA holds NAME_train.zip (images/ and labels.tsv each) for the six sources below, text/ with the word lists, and
# fonts-latin.txt with the Debian packages of the faces: apt-get install --no-install-recommends $(cat fonts-latin.txt)
set -euo pipefail
data=$(realpath "${1:?usage: runs/en.sh DATA [RUN]}")
run=${2:-runs/out/en}
cd "$(dirname "$0")/.."
crnn=${CRNN:-.venv/bin/crnn}

mkdir -p "$(dirname "$run")"
sources=(iiit5k svt icdar03 icdar15 funsd sroie)
{
    echo "train = ["
    # Weights: share among the real crops. Labels of svt and sroie are capitals whatever is printed.
    for each in "iiit5k 7 false" "svt 1 true" "icdar03 3 false" "icdar15 12 false" "funsd 8 false" "sroie 4 true"; do
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
    echo "[synth]"
    echo "corpus = [\"$data/text/eng.wordlist.txt\", \"$data/text/lexicon90k.txt\"]"
} >"$run.toml"

if [[ -f $run/last.ckpt && ! -f $run/model.onnx ]]; then
    "$crnn" train --resume --output "$run"
elif [[ ! -f $run/model.onnx ]]; then
    "$crnn" train --preset en --config "$run.toml" --output "$run"
fi

"$crnn" export "$run" src/crnn/weights/en --precision fp16
(cd src/crnn/weights && sha256sum */model.onnx >SHA256SUMS)
zips=("${sources[@]/#/$data/}")
for protocol in 36 raw; do
    "$crnn" evaluate "${zips[@]/%/_train.zip}" --split valid --protocol "$protocol"
done
