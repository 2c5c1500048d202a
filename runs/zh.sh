#!/usr/bin/env bash
# The one path to the bundled Chinese model: rendered lines and real words in, src/crnn/weights/zh out. Starts from the
# bundled `en`.
#
#   runs/zh.sh DATA [RUN]      resumes when called again
#
# Where there is a GPU, ten more minutes on it follow, from a pool of crops in its memory: docs/experiments.md says what
# they brought. The published model had more steps before and behind them, in several parts.
#
# DATA holds text/chi_sim.training_text.txt, NAME_train.zip of the four sources of real English words below, and the
# Debian packages of the faces: apt-get install --no-install-recommends $(cat fonts-chinese.txt fonts-latin.txt).
# FONTS: a folder of more faces; the published model had those of the npm packages
# @expo-google-fonts/{ma-shan-zheng,liu-jian-mao-cao,zhi-mang-xing,zcool-xiaowei,zcool-kuaile,zcool-qingke-huangyou,
# noto-sans-sc,noto-serif-sc}; in its last part of Noto's three weights each, and one face of each of Debian's
# fonts-{cns11643-kai,cns11643-sung,seto,ipafont-gothic,ipafont-mincho,ipamj-mincho,vlgothic,migmix,horai-umefont,
# motoya-l-cedar,motoya-l-maruberi,oradano-mincho-gsrr,dotgothic16,morisawa-bizud-mincho,cwtex-fs,cwtex-ming,
# kouzan-mouhitsu}. What the texts need says runs/chinese.py.
set -euo pipefail
data=$(realpath "${1:?usage: runs/zh.sh DATA [RUN]}")
run=${2:-runs/out/zh}
cd "$(dirname "$0")/.."
crnn=${CRNN:-.venv/bin/crnn}
python=$(dirname "$(command -v "$crnn")")/python

# Number 2 of Noto's and number 0 of Arphic's collections are the mainland's forms; number 7 of Noto's and number 1 of Zen
# Hei have Latin letters of one width, as many documents do. The faces of the validation, wqy-microhei and gbsn00lp, are
# not among them.
system=/usr/share/fonts
fonts=("$system"/opentype/noto/Noto{Sans,Serif}CJK-{Regular,Bold}.ttc#2
    "$system"/opentype/noto/NotoSansCJK-{Regular,Bold}.ttc#7
    "$system"/truetype/arphic/{ukai,uming}.ttc#0 "$system"/truetype/wqy/wqy-zenhei.ttc#{0,1}
    "$system"/truetype/{arphic-gkai00mp,lxgw-wenkai,smiley-sans,babelstone} "$run-latin" ${FONTS:+"$FONTS"})
unseen=("$system"/truetype/wqy/wqy-microhei.ttc "$system"/truetype/arphic-gbsn00lp)

mkdir -p "$run-latin"
mapfile -t packages < <(tr ' ' '\n' <"$data/fonts-latin.txt")
dpkg -L "${packages[@]}" | grep -iE '\.(ttf|otf)$' | while read -r face; do
    ln -sf "$face" "$run-latin/${face//\//_}"
done
[[ -d $run-text ]] || "$python" runs/chinese.py "$data/text" "$run-text"

rendered() { # NAME COUNT TEXT MIX LOOKS FONT...
    local name=$1 count=$2 text=$3 mix=$4 looks=$5
    shift 5
    [[ -f $run-$name/labels.tsv ]] || "$crnn" synth "$run-$name" --preset zh --set "synth.mix=$mix" \
        ${looks:+--set "synth.looks=$looks"} --count "$count" --seed 79 --corpus "$run-text/words.txt" \
        --corpus "$run-text/$text.txt" "${@/#/--fonts=}"
}
# What the models before were judged by, and what people read.
mix="{ sentence = 0.44, characters = 0.18, word = 0.16, random = 0.03, number = 0.04, code = 0.03, line = 0.02, \
text = 0.07, punctuated = 0.03 }"
rendered all 5000 valid "$mix" "" "${unseen[@]}"
rendered document 2500 valid "$mix" "{ document = 1.0 }" "${unseen[@]}"
rendered running 2500 running "{ text = 1.0 }" "{ document = 1.0 }" "${unseen[@]}"
rendered calibration 1800 train "$mix" "" "${fonts[@]}"  # of fewer, three words decide whether int8 is as good

{
    echo "train = ["
    for each in "iiit5k 3 false" "icdar15 3 false" "funsd 3 false" "sroie 2 true"; do
        read -r name weight fold <<<"$each"
        echo "  { path = \"$data/${name}_train.zip\", split = \"train\", weight = $weight, fold_case = $fold },"
    done
    echo "]"
    echo "valid = [{ path = \"$run-document\" }, { path = \"$data/iiit5k_train.zip\", split = \"valid\" }]"
    echo "[synth]"
    echo "corpus = [\"$run-text/words.txt\", \"$run-text/train.txt\"]"
    printf 'fonts = ['
    printf '"%s", ' "${fonts[@]}"
    echo "]"
} >"$run.toml"

if [[ -f $run/last.ckpt && ! -f $run/model.onnx ]]; then
    "$crnn" train --resume --output "$run"
elif [[ ! -f $run/model.onnx ]]; then
    "$crnn" train --preset zh --config "$run.toml" --output "$run"
fi
trained=$run
if nvidia-smi &>/dev/null; then
    trained=$run-pool
    "$python" runs/pool.py "$trained" --seconds 600 --preset zh --config "$run.toml" --set "init=$run" --set seed=601 \
        --set optimiser.learning_rate=2.5e-3 --set synth.share=0.88 --set "synth.mix={ text = 0.28, sentence = 0.35, \
characters = 0.13, word = 0.07, punctuated = 0.05, number = 0.04, code = 0.04, line = 0.02, random = 0.02 }" \
        --set "synth.looks={ document = 0.36, scan = 0.22, screen = 0.24, photo = 0.18 }"
fi
"$crnn" export "$trained" src/crnn/weights/zh --precision int8 --data "$run-calibration"  # in half precision as well
"$python" runs/scores.py zh  # no scores of training; checksums: without them no bundled model is read
score() { # NAME OPTION... DATA
    "$crnn" evaluate "${@:2}" --model zh --json >"$run-score.json"
    "$python" runs/scores.py zh "$1=$run-score.json"
}
[[ -d $run-sheet ]] || "$python" runs/chinese_sheet.py "$run-sheet" "${unseen[0]}#0" "${unseen[1]}"/*.ttf
score "clean document lines" --protocol raw "$run-document"
score "running text" --protocol raw "$run-running"
score "lines of all looks" --protocol raw "$run-all"
score "every character once" --protocol raw "$run-sheet"
for protocol in raw 36; do score iiit5k --protocol "$protocol" --split valid "$data/iiit5k_train.zip"; done
"$crnn" models
