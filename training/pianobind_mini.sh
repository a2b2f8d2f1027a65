#!/usr/bin/env bash
# Makes pianobind-mini from the open piano corpus: `bash training/pianobind_mini.sh CORPUS`, from the repository's root.
#
# CORPUS is a folder with metadata.jsonl.gz and one archive for each source. Everything is written to runs/; the result
# is runs/mini. A step whose output exists is skipped, and a training run that was interrupted continues from its last
# save: after an interruption, start the script again. MIXED_PRECISION=no trains in float32.
set -euo pipefail
corpus=${1:?usage: bash training/pianobind_mini.sh CORPUS}
encoder=sentence-transformers/all-MiniLM-L6-v2
# The audio tower continues that of the third version, which an earlier form of this recipe made.
third=5d66f2b:modeling_pianobind/checkpoints/pianobind-mini

step() { # step OUTPUT COMMAND...: runs the command unless its output exists
    [ -e "$1" ] && return
    echo "== $1" >&2
    "${@:2}"
}
unpack() { # unpack FOLDER [ARCHIVE]: into runs/FOLDER
    step "runs/$1" extract "$1" "$corpus/${2:-$1}.tar.gz"
}
extract() { # an interrupted tar leaves nothing that looks complete
    mkdir -p runs/unpacked
    tar xzf "$2" -C runs/unpacked
    mv "runs/unpacked/$1" "runs/$1"
}
train() { # train NAME: the run of training/configs/pianobind_NAME.yaml, into runs/NAME
    local resume=""
    if [ -e "runs/$1/arguments.json" ]; then resume=--resume; fi
    # shellcheck disable=SC2086 # nothing, if there is nothing to resume
    step "runs/$1.done" accelerate launch --mixed_precision "${MIXED_PRECISION:-bf16}" -m training.train \
        "training/configs/pianobind_$1.yaml" $resume
    touch "runs/$1.done"
}
assemble() { # assemble AUDIO MIDI TEXT OUTPUT: a checkpoint of towers from three places
    step "$4" python -m training.initialize_checkpoint --audio "$1" --midi "$2" --text "$3" --output "$4"
}
earlier_version() {
    mkdir -p runs/third.partial
    for file in config.json model.safetensors processor_config.json tokenizer.json tokenizer_config.json; do
        git show "$third/$file" > "runs/third.partial/$file"
    done
    mv runs/third.partial runs/third
}

# 1. The corpus as flat arrays of notes, the pianos, and pairs of printed scores and their performances.
mkdir -p runs
step runs/packed python -m training.data.corpus "$corpus" runs/packed
unpack salamander salamander_grand
unpack pianos
unpack asap_scores
step runs/score_pairs python -m training.data.score_pairs runs/asap_scores runs/packed runs/score_pairs

# 2. The MIDI tower, from new weights, beside a pretrained text tower.
assemble new new "$encoder" runs/start
train mini_midi

# 3. The text tower, with the pieces as the MIDI tower embeds them.
step runs/mini_text python -m training.train_text runs/mini_midi/checkpoint runs/packed --output runs/mini_text

# 4. Both once more: the MIDI tower with the new text tower, the text tower with the new MIDI tower.
train mini_midi_further
step runs/mini_text_further python -m training.train_text runs/mini_midi_further/checkpoint runs/packed \
    --output runs/mini_text_further

# 5. The audio tower learns from the MIDI of its windows; then audio is corrected to score like MIDI.
step runs/third earlier_version
assemble runs/third runs/mini_midi_further/checkpoint runs/mini_midi_further/checkpoint runs/audio_start
train mini_audio
assemble runs/mini_audio/checkpoint runs/mini_text_further runs/mini_text_further runs/joined
step runs/mini python -m training.balance_audio runs/joined training/configs/pianobind_mini_audio.yaml \
    --instrument runs/pianos/upright_kw --output runs/mini

# 6. The small files of these weights: calibration of scores, valence and arousal, difficulty.
step runs/mini/calibration.safetensors pianobind calibrate --checkpoint runs/mini
step runs/mini/emotion.safetensors python -m training.fit_heads runs/mini runs/packed \
    --instruments training/configs/pianobind_mini_audio.yaml
