#!/usr/bin/env bash
# Everything that a GPU has to say about a build, in one go: bench/cuda/run_all.sh BUILD OUT [TARGET.gguf]
# Tests first, in shards beside one another, each with a time limit and a log in OUT/logs, then the benchmarks one by one; OUT gets the JSON
# of bench/results/cuda_*.json. A part that fails is named at the end, and the exit code is 1. ONLY=REGEX runs the parts whose names match.
set -uo pipefail

build=${1:?usage: run_all.sh BUILD OUT [TARGET.gguf]}
out=${2:?usage: run_all.sh BUILD OUT [TARGET.gguf]}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export SPECDEC_TEST_DEVICE=cuda SPECDEC_TEST_TARGET=${3:-$root/.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf}
mkdir -p "$out/logs"
failed=()

# part NAME SECONDS COMMAND...
part() {
  local name=$1 limit=$2 status=0 begin=$SECONDS
  shift 2
  [[ $name =~ ${ONLY:-.} ]] || return 0
  timeout "$limit" "$@" >"$out/logs/$name" 2>&1 || status=$?
  ((status == 0 || status == 77)) || failed+=("$name ($status)")
  printf '%-28s %4d s  exit %d  %s\n' "$name" $((SECONDS - begin)) "$status" "$(grep -a 'test cases:' "$out/logs/$name" | tail -1)"
}

# loop NAME FLAGS...: the engine's device loop on development prompts.
loop() {
  local name=$1
  shift
  part "loop_$name" 150 "$build/tools/specdec_bench/specdec-bench" --prompts "$root/bench/prompts/spec_bench_dev.jsonl" --device cuda \
    --target "$SPECDEC_TEST_TARGET" --temperature 0 --json "$out/loop_$name.json" "$@"
}

test_program() { find "$build/tests" -name "$1" -type f -perm -u+x | head -1; }
# tests NAME SECONDS SHARDS: sets a test program's cases going, beside one another since one hardly fills a GPU; await_tests ends them.
tests() {
  local name=$1 limit=$2 shards=$3 program count shard first last
  [[ $name =~ ${ONLY:-.} ]] || return 0
  program=$(test_program "$name")
  count=$("$program" -c | grep -oE '[0-9]+$' | tail -1)
  ((count > 0)) || failed+=("$name (no test case runs here)")
  for ((shard = 0; shard < shards; ++shard)); do
    first=$((shard * count / shards + 1)) last=$(((shard + 1) * count / shards))
    ((first <= last)) || continue
    (
      status=0
      begin=$SECONDS
      log=$name.$shard
      timeout "$limit" "$program" -f="$first" -l="$last" >"$out/logs/$log" 2>&1 || status=$?
      ((status == 0 || status == 77)) || echo "$log ($status)" >>"$out/failed"
      printf '%-28s %4d s  exit %d  %s\n' "$log" $((SECONDS - begin)) "$status" "$(grep -a 'assertions:' "$out/logs/$log" | tail -1)"
    ) &
  done
}
await_tests() {
  wait
  [[ -f $out/failed ]] || return 0
  mapfile -t -O ${#failed[@]} failed <"$out/failed"
}

nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,clocks.max.memory --format=csv,noheader | tee "$out/machine.txt"
rm -f "$out/failed"
tests test_cuda 200 8
tests cuda_sampling_test 200 4
tests test_engine 300 16
tests test_exactness 300 12
tests test_acceptance 120 1
await_tests
part test_device_fault 60 "$(test_program test_device_fault)"  # alone: it breaks its GPU
part bench_cuda 240 "$build/bench/cuda/bench_cuda" --json "$out/cuda_forward.json"
part bench_eagle 120 "$build/bench/cuda/bench_eagle" --json "$out/cuda_eagle.json"
part bench_cuda_sampling 60 "$build/bench/cuda_sampling/bench_cuda_sampling" "$out/cuda_sampling.json"
head=$root/models/smollm2-135m-eagle3
draft=$root/models/smollm2-135m-draft.Q8_0.gguf
adaptive=(--draft-length-mode adaptive --cost-cache off)
loop draft_model --limit 40 --max-tokens 512 --methods none,draft_model --draft-method draft_model --draft-model "$draft" "${adaptive[@]}" --num-speculative-tokens 7
loop eagle3 --limit 40 --max-tokens 512 --methods none,eagle3 --draft-method eagle3 --draft-model "$head" "${adaptive[@]}" --num-speculative-tokens 7
loop eagle3_fixed --limit 40 --max-tokens 512 --methods none,eagle3 --draft-method eagle3 --draft-model "$head" --draft-length-mode fixed --num-speculative-tokens 5
loop eagle3_batch_32 --limit 64 --batch 32 --max-tokens 512 --methods none,eagle3 --draft-method eagle3 --draft-model "$head" "${adaptive[@]}" --num-speculative-tokens 7
# Single steps, whose passes are graphs or launched kernel by kernel.
for graphs in true false; do
  loop "steps_graphs_$graphs" --limit 20 --max-tokens 256 --methods none,suffix+eagle3 --draft-method suffix+eagle3 --draft-model "$head" \
    --draft-length-mode fixed --num-speculative-tokens 7 --device-loop false --step-graphs "$graphs"
done

if ((${#failed[@]})); then
  printf 'failed: %s\n' "${failed[*]}"
  exit 1
fi
