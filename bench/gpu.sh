#!/usr/bin/env bash
# What one GPU says in ten minutes, most telling first: bash bench/gpu.sh FOLDER [CONFIG]      (CONFIG: 7b, the default; tiny to try the script)
#
# Needs torch, transformers and pytest; no video package, no network, no weights. Each step has its own time limit, leaves its output in
# FOLDER/STEP.log, and adds one JSON line to FOLDER/results.jsonl as it ends: the bench's own, or {"step", "rc", "wall_s"} where there was none.
# A step that fails stops nobody. Weights are random: these are times, not quality. `engine_cudnn` sizes what leaving cuDNN attention on would cost.
set -u
out=${1:?name a folder for the results}
config=${2:-7b}
cd "$(dirname "$0")/.." || exit 1
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
export PYTHONPATH=src PYTHONUNBUFFERED=1

step() { # NAME SECONDS COMMAND...: run it no longer than that
  local name=$1 limit_s=$2 began line rc
  shift 2
  began=$(date +%s)
  timeout -k 5 "$limit_s" "$@" >"$out/$name.log" 2>&1
  rc=$?
  line=$(tail -n 1 "$out/$name.log")
  case $rc$line in
    0{*) echo "$line" >>"$out/results.jsonl" ;;
    *) echo "{\"step\": \"$name\", \"rc\": $rc, \"wall_s\": $(($(date +%s) - began))}" >>"$out/results.jsonl" ;;
  esac
  tail -n 3 "$out/$name.log" | cut -c -200 | sed "s/^/$name: /"
}

step machine 60 python3 -c 'import json, torch, transformers; print(json.dumps({"step": "machine", "torch": torch.__version__, "cuda": torch.version.cuda,
  "cudnn": torch.backends.cudnn.version(), "transformers": transformers.__version__, "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None}))'
step tests 90 python3 -m pytest -p no:cacheprovider -n 0 -q tests/models/qwen25/test_decode.py tests/models/qwen25/test_vision.py -k "gpu and not compile"
step roofline 70 python3 bench/roofline.py --config "$config" --chunks 22
step realtime 300 python3 bench/realtime.py --config "$config" --chunks 18 --tries 1 --max-fps 32 --max-streams 32
step engine 80 python3 bench/engine.py --config "$config" --chunks 22
step methods 90 python3 bench/methods.py --config "$config" --methods streaming,full --chunks 40 --folder "$out"
step realtime_224 120 python3 bench/realtime.py --config "$config" --px 224 224 --chunks 18 --tries 1 --max-fps 64 --max-streams 1
step engine_cudnn 60 python3 bench/engine.py --config "$config" --chunks 18 --cudnn
step compiled 120 python3 -m pytest -p no:cacheprovider -n 0 -q tests/models/qwen25/test_decode.py -k "gpu and compile"
