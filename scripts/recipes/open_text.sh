#!/usr/bin/env bash
# Mix text of many kinds into data/pairs: scripts/recipes/open_text.sh DIRECTORY [SCALE [FILE ...] [OPTION ...]]
# DIRECTORY holds the files named below; SCALE multiplies their shares, so that 0.1 makes a tenth of the text; further
# files are added as they are; the options are those of scripts/prepare_data.py.
set -euo pipefail
directory=${1:?usage: open_text.sh DIRECTORY [SCALE [FILE ...] [OPTION ...]]} scale=${2:-1}
shift $(($# < 2 ? $# : 2))

# Reddit alone is half of the words; captions, definitions, questions and dialogue are what is rare and wanted.
mixture=$(awk -v directory="$directory" -v scale="$scale" '
    { share = $2 * scale; printf "%s/%s=%g\n", directory, $1, (share > 1 ? 1 : share) }' <<'END'
reddit_titles.txt.gz 0.06
reddit_title_body.tsv.gz 0.06
tech_docs.txt.gz 0.08
tech_docs.tsv.gz 0.2
sgd_dialogue.txt.gz 0.1
standard_ebooks.txt.gz 0.12
tatoeba_english.txt.gz 0.4
english_wordnet.txt.gz 0.15
english_wordnet.tsv.gz 0.25
wordset_dictionary.txt.gz 0.15
wordset_dictionary.tsv.gz 0.2
opentriviaqa.txt.gz 0.3
audiocaps.txt.gz 0.7
coco_captions_5k_val.txt.gz 1
coco_captions_5k_val.tsv.gz 1
questions_misc.txt.gz 0.3
questions_misc.tsv.gz 1
query_wellformedness.txt.gz 0.4
squad_sentence_question.tsv.gz 0.4
selqa.txt.gz 0.4
selqa.tsv.gz 1
wiki_split.txt.gz 0.5
wiki_split.tsv.gz 0.5
clickbait_headlines.txt.gz 0.5
medquad.txt.gz 0.2
medquad.tsv.gz 0.15
covid_faq.tsv.gz 1
scitldr.txt.gz 0.3
scitldr.tsv.gz 0.3
voice_commands.txt.gz 0.4
tldr_pages.txt.gz 0.2
nl2bash.txt.gz 0.3
cia_factbook.txt.gz 0.2
END
)
mapfile -t sources <<<"$mixture"
exec "${PYTHON:-.venv/bin/python}" scripts/prepare_data.py --dataset "${sources[@]}" "$@"
