#!/usr/bin/env bash
# The one path to the bundled model of European languages: rendered text and real words in, src/crnn/weights/latin out.
# Starts from the bundled `en`. What is bundled had 7,953 of its steps, then 12,500 from there (`--init latin`, learning
# rate 1.8e-3, seed 5, no columns), and is the mean of the weights after the two, 1 to 2 (docs/experiments.md, 2026-11-30).
#
#   runs/latin.sh DATA [RUN]      resumes when called again
#
# DATA holds NAME_train.zip (images/ and labels.tsv each) for the six sources below and fonts-latin.txt with the Debian
# packages of the faces: apt-get install --no-install-recommends $(cat fonts-latin.txt). What the texts need says
# runs/latin.py; SHARE, if it is not /usr/share, is where they lie.
set -euo pipefail
data=$(realpath "${1:?usage: runs/latin.sh DATA [RUN]}")
run=${2:-runs/out/latin}
cd "$(dirname "$0")/.."
crnn=${CRNN:-.venv/bin/crnn}
python=$(dirname "$(command -v "$crnn")")/python

mkdir -p "$run-faces" "$run-unseen"
mapfile -t packages < <(tr ' ' '\n' <"$data/fonts-latin.txt")
dpkg -L "${packages[@]}" | grep -iE '\.(ttf|otf)$' | while read -r face; do
    part=faces
    [[ $face =~ OpenSans-|Vollkorn|texgyrepagella ]] && part=unseen # the model is judged by them
    ln -sf "$face" "$run-$part/${face//\//_}"
done
[[ -d $run-text ]] || "$python" runs/latin.py "$run-text" ${SHARE:+"$SHARE"}

rendered() { # NAME COUNT SEED FACES TEXT OPTION...
    [[ -f $run-$1/labels.tsv ]] || "$crnn" synth "$run-$1" --preset latin --count "$2" --seed "$3" "${@:6}" \
        --fonts "$run-$4" --corpus "$run-text/words.txt" --corpus "$run-text/$5.txt"
}
running=(--set "synth.mix={ text = 1.0 }" --set "synth.looks={ document = 1.0 }")
rendered running 2500 12 unseen running "${running[@]}"
rendered all 2500 13 unseen running
rendered calibration 1200 11 faces train

sources=("iiit5k 8 false" "svt 1 true" "icdar03 3 false" "icdar15 12 false" "funsd 8 false" "sroie 4 true")
zips=()
{
    echo "train = ["
    for each in "${sources[@]}"; do
        read -r name weight fold <<<"$each"
        echo "  { path = \"$data/${name}_train.zip\", split = \"train\", weight = $weight, fold_case = $fold },"
        zips+=("$data/${name}_train.zip")
    done
    echo "]"
    echo "valid = [{ path = \"$run-calibration\" }]"
    echo "[synth]"
    echo "corpus = [\"$run-text/words.txt\", \"$run-text/rare.txt\", \"$run-text/train.txt\"]"
    echo "fonts = [\"$run-faces\"]"
} >"$run.toml"

if [[ -f $run/last.ckpt && ! -f $run/model.onnx ]]; then
    "$crnn" train --resume --output "$run"
elif [[ ! -f $run/model.onnx ]]; then
    "$crnn" train --preset latin --config "$run.toml" --output "$run"
fi
"$crnn" export "$run" src/crnn/weights/latin --precision int8 --data "$run-calibration" "${zips[@]/#/--data=}"
"$python" runs/scores.py latin # no scores of training; checksums: without them no bundled model is read
score() { # NAME OPTION... DATA
    "$crnn" evaluate "${@:2}" --model latin --json >"$run-score.json"
    "$python" runs/scores.py latin "$1=$run-score.json"
}
score "running text" --protocol raw "$run-running"
score "words of all looks" --protocol raw "$run-all"
for protocol in raw 36; do score "English words" --protocol "$protocol" --split valid "${zips[@]}"; done
"$crnn" models
