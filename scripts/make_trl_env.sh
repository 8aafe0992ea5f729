#!/bin/sh
# Build the environment of the rival and oracle, TRL, beside this package's needs, and leave a stamp when it is whole.
#   scripts/make_trl_env.sh .envs/trl
set -eu

directory=${1:?"usage: scripts/make_trl_env.sh DIRECTORY"}
if [ -e "$directory/.complete" ] && cmp -s "$0" "$directory/.complete"; then
    exit 0
fi
rm -rf "$directory"
"${PYTHON:-python3}" -m venv "$directory"
"$directory/bin/pip" install --quiet --upgrade pip
"$directory/bin/pip" install --quiet torch==2.13.0
"$directory/bin/pip" install --quiet transformers==5.23.0 accelerate==1.15.0 peft==0.21.2 trl==1.16.0 \
    math-verify==0.9.0 pydantic pyyaml click rich jinja2 numpy scipy httpx datasketch pytest pytest-timeout
"$directory/bin/python" -c "import trl, pytest"
cp "$0" "$directory/.complete"
