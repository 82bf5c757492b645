#!/usr/bin/env bash
# Builds tiny-chat from nothing: conversations, tokenizer, random weights, training, scores.
# usage: bash examples/tiny-chat/train.sh [work folder]        about 6 minutes on one H200
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-output/tiny-chat-recipe}

python3 "$here/generate.py" --output "$work/data" --rows 250000 --eval-rows 300 --seed 42
python3 "$here/tokenizer.py" --data "$work/data/train.jsonl" --output "$work/init"
python3 "$here/coverage.py" --data "$work/data/train.jsonl" --tokenizer "$work/init"
python3 "$here/init.py" --tokenizer "$work/init" --output "$work/init" --seed 42

python3 -m swiftlite sft --model_type tiny-chat --model_id_or_path "$work/init" --sft_type full \
    --dataset "$work/data/train.jsonl" --dataset_test_ratio 0.004 \
    --dtype bf16 --gradient_checkpointing false --batch_size 256 --gradient_accumulation_steps 1 --group_by_length true \
    --learning_rate 1.2e-3 --num_train_epochs 6 --seed 42 \
    --eval_steps 2000 --save_steps 100000 --logging_steps 250 --report_to none \
    --output_dir "$work/sft" --add_output_dir_suffix false

# The checkpoint as it ships: trained weights beside the tokenizer and configs that training started from.
mkdir -p "$work/tiny-chat"
cp "$work"/init/{config.json,generation_config.json,tokenizer.json,tokenizer_config.json} "$work/tiny-chat/"
cp "$(ls -d "$work"/sft/checkpoint-* | sort -V | tail -n 1)/model.safetensors" "$work/tiny-chat/"
chmod 644 "$work"/tiny-chat/*

python3 "$here/evaluate.py" --model "$work/tiny-chat" --data "$work/data/heldout.jsonl" --failures "$work/failures.jsonl" \
    --batch-size 600
