#!/usr/bin/env bash
# venv.sh EXTRA: .venv with the package (editable) and its extra (runner, dev), made anew only when pyproject.toml changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extra=$1
python=${PYTHON:-python3}
stamp=.venv/.hpstudy-$extra
[ -f "$stamp" ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt hack/venv.sh ] && exit 0

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "hpstudy needs Python 3.11 or newer; $python is $("$python" -V 2>&1). Set PYTHON=/path/to/python3.11" >&2; exit 1; }
[ -x .venv/bin/python ] || "$python" -m venv .venv || { echo "python3 -m venv failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
[ -x .venv/bin/uv ] || .venv/bin/python -m pip install --quiet --disable-pip-version-check uv

# PyPI's torch brings gigabytes of CUDA: take a CPU wheel where one lies ready (HPSTUDY_WHEELS). Elsewhere UV_TORCH_BACKEND=cpu does as much.
tag=$(.venv/bin/python -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
options=()
wheels=${HPSTUDY_WHEELS:-../shared/wheels}
constraint=.venv/torch-constraint.txt
for wheel in "$wheels"/torch-*-"$tag"-"$tag"-*.whl; do
  [ -f "$wheel" ] || continue
  version=${wheel##*/torch-}
  echo "torch==${version%%-*}" > "$constraint"
  options=(--find-links "$wheels" --constraint "$constraint")
done
echo "installing hpstudy[$extra] into .venv" >&2
.venv/bin/uv pip install --quiet --python .venv/bin/python ${options[@]+"${options[@]}"} --editable ".[$extra]"
# In a folder of its own: where DeepSpeed is found, every Trainer imports it, for seconds. Its needs besides what the rest has.
deepspeed=("deepspeed>=0.19.8,<0.20" einops hjson msgpack ninja nvidia-ml-py py-cpuinfo)
[ "$extra" != dev ] || DS_BUILD_OPS=0 .venv/bin/uv pip install --quiet --python .venv/bin/python --target .venv/deepspeed --upgrade --no-deps "${deepspeed[@]}"
touch "$stamp"
