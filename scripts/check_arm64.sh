#!/usr/bin/env bash
# Run a model's ONNX files on an emulated 64-bit ARM processor, a Raspberry Pi 4's, and compare with this machine's
# vectors:
#   scripts/check_arm64.sh MODEL TEXTS [DIRECTORY]
# TEXTS is a file with one text a line, of which 200 are used; DIRECTORY (build/arm64) keeps the emulated system. It
# takes Debian with root, to install QEMU and debootstrap, and a few minutes. Emulation says nothing of speed.
set -euo pipefail
usage="usage: check_arm64.sh MODEL TEXTS [DIRECTORY]"
model=${1:?$usage} texts=${2:?$usage} directory=${3:-build/arm64}
python=${PYTHON:-.venv/bin/python}
root=$directory/root packages=$directory/packages

for program in qemu-aarch64-static debootstrap; do
    command -v "$program" >/dev/null || apt-get install -y -qq qemu-user-static debootstrap
done
if [[ ! -e $directory/ready ]]; then
    rm -rf "$root" "$packages"
    mkdir -p "$packages"
    debootstrap --foreign --arch=arm64 --variant=minbase --include=python3 bookworm "$root"
    for package in "$root"/var/cache/apt/archives/*.deb; do
        dpkg-deb -x "$package" "$root"
    done
    # ONNX Runtime asks which processor it runs on, and would find this machine's.
    for core in 0 1 2 3; do
        printf 'processor\t: %s\nFeatures\t: fp asimd crc32 cpuid\nCPU implementer\t: 0x41\n' "$core"
        printf 'CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n'
    done >"$root/proc/cpuinfo"
    "$python" -m pip install --quiet --target "$packages" --python-version 3.11 --only-binary=:all: \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
        -c scripts/constraints.txt numpy onnxruntime tokenizers huggingface-hub
    touch "$directory/ready"
fi

embed='
import sys
from pathlib import Path
import numpy as np
from asterisk import AsteriskEncoder

model, texts, output = sys.argv[1:]
lines = open(texts, encoding="utf-8").read().splitlines()[:200]
for file in Path(model, "onnx").glob("*.onnx"):
    np.save(f"{output}_{file.stem}.npy", AsteriskEncoder(model, f"onnx/{file.name}", threads=1).encode(lines))
'
compare='
import sys
from pathlib import Path
import numpy as np

others = []
for name in sorted(file.stem for file in Path(sys.argv[2], "onnx").glob("*.onnx")):
    here, there = (np.load(f"{sys.argv[1]}/{side}_{name}.npy").astype(np.float64) for side in ("here", "arm64"))
    cosines = (here * there).sum(1) / np.linalg.norm(here, axis=1) / np.linalg.norm(there, axis=1)
    print(f"{name}.onnx: {len(cosines)} texts, worst cosine to this machine {cosines.min():.9f}")
    if cosines.min() < 0.999:
        others.append(f"{name}.onnx")
if others:
    sys.exit("error: other vectors there: " + ", ".join(others))
'
"$python" -c "$embed" "$model" "$texts" "$directory/here"
qemu-aarch64-static -cpu cortex-a72 -L "$root" -E PYTHONPATH="$PWD:$packages" "$root/usr/bin/python3.11" \
    -c "$embed" "$model" "$texts" "$directory/arm64"
"$python" -c "$compare" "$directory" "$model"
