#!/usr/bin/env bash
# The one path to the bundled Chinese model: rendered lines in, src/crnn/weights/zh out. Starts from the bundled `en`.
#
#   runs/zh.sh DATA [RUN]      resumes when called again
#
# DATA holds text/chi_sim.wordlist.txt, text/chi_sim.training_text.txt and fonts-chinese.txt with the Debian packages of
# the faces: apt-get install --no-install-recommends $(cat fonts-chinese.txt). More faces: FONTS, a folder of them.
set -euo pipefail
data=$(realpath "${1:?usage: runs/zh.sh DATA [RUN]}")
run=${2:-runs/out/zh}
cd "$(dirname "$0")/.."
crnn=${CRNN:-.venv/bin/crnn}

# Number 2 of Noto's and number 0 of Arphic's collections are the mainland's forms.
system=/usr/share/fonts
fonts=("$system"/opentype/noto/Noto{Sans,Serif}CJK-{Regular,Bold}.ttc#2
    "$system"/truetype/arphic/{ukai,uming}.ttc#0 "$system"/truetype/wqy/{wqy-zenhei,wqy-microhei}.ttc#0
    "$system"/truetype/arphic-{gbsn00lp,gkai00mp} "$system"/truetype/{lxgw-wenkai,smiley-sans,babelstone}
    ${FONTS:+"$FONTS"})

mkdir -p "$(dirname "$run")"
{
    echo "[synth]"
    echo "corpus = [\"$data/text/chi_sim.wordlist.txt\", \"$data/text/chi_sim.training_text.txt\"]"
    printf 'fonts = ['
    printf '"%s", ' "${fonts[@]}"
    echo "]"
} >"$run.toml"

if [[ ! -f $run-valid/labels.tsv ]]; then
    # Another seed and, with FONTS_VALID, faces that training does not see.
    "$crnn" synth "$run-valid" --preset zh --count 2000 --seed 77 --corpus "$data/text/chi_sim.wordlist.txt" \
        --corpus "$data/text/chi_sim.training_text.txt" --fonts "${FONTS_VALID:-$system/truetype/hanazono/HanaMinA.ttf}"
fi
if [[ -f $run/last.ckpt && ! -f $run/model.onnx ]]; then
    "$crnn" train --resume --output "$run"
elif [[ ! -f $run/model.onnx ]]; then
    "$crnn" train --preset zh --config "$run.toml" --valid "$run-valid" --output "$run"
fi
"$crnn" export "$run" src/crnn/weights/zh --precision fp16
(cd src/crnn/weights && sha256sum */model.onnx >SHA256SUMS)
"$crnn" evaluate "$run-valid" --model zh
