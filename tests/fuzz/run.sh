#!/usr/bin/env bash
# Builds the fuzz targets with clang and runs each from its seeds: tests/fuzz/run.sh [--fast] SECONDS [TARGET...]
# Targets: gguf safetensors eagle tokenizer_json toml regex gbnf schema. Corpora stay in build/fuzz/corpus, findings in build/fuzz/findings.
# --fast: without sanitizers, in build/fuzz-fast: many more inputs, and the grammars' limit is a tenth of a second.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=build/fuzz sanitizers=ON memory_mb=2048
[[ ${1-} == --fast ]] && build=build/fuzz-fast sanitizers=OFF memory_mb=512 && shift
seconds=${1:?usage: tests/fuzz/run.sh [--fast] SECONDS [TARGET...]}
shift
targets=("$@")
((${#targets[@]})) || targets=(gguf safetensors eagle tokenizer_json toml regex gbnf schema)

generator=()
command -v ninja >/dev/null && generator=(-G Ninja)
cmake -B "$build" "${generator[@]}" -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=Release -DSPECDEC_BUILD_FUZZ=ON \
  -DSPECDEC_BUILD_TESTS=OFF -DSPECDEC_BUILD_TOOLS=OFF -DSPECDEC_CUDA=OFF -DSPECDEC_FUZZ_SANITIZERS=$sanitizers >/dev/null
cmake --build "$build" -j "$(nproc)" --target "${targets[@]/#/fuzz_}" >$build/build.log 2>&1 ||
  { tail -40 $build/build.log; exit 1; }

mkdir -p $build/findings
status=0
for target in "${targets[@]}"; do
  corpus=$build/corpus/$target
  mkdir -p "$corpus"
  arguments=(-max_total_time="$seconds" -rss_limit_mb=$memory_mb -timeout=60 -print_final_stats=1 -verbosity=1
             -artifact_prefix="$build/findings/$target-")
  [[ -f tests/fuzz/dictionaries/$target.dict ]] && arguments+=(-dict="tests/fuzz/dictionaries/$target.dict")
  log=$build/$target.log
  if "$build/tests/fuzz/fuzz_$target" "${arguments[@]}" "$corpus" "tests/fuzz/seeds/$target" >"$log" 2>&1; then
    awk -v name="$target" '/number_of_executed_units/ { runs = $2 } / cov: / { for (i = 1; i < NF; ++i)
      if ($i == "cov:") cov = $(i + 1) } END { printf "%s: %d runs, %d edges, no finding\n", name, runs, cov }' "$log"
  else
    printf '%s: FINDING, see %s\n' "$target" "$log"
    grep -v '^#' "$log" | tail -40
    status=1
  fi
done
exit $status
