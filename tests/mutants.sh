#!/usr/bin/env bash
# Plants one known fault after the other and runs the suites that should notice it. Prints killed or
# SURVIVED for each and a count; fails when one survives.
#
#   tests/mutants.sh [BUILD_DIR] [NAME...]     default: build/mutants, every mutant
#
# test_acceptance needs the real target (see tests/support/engine_runs.h): without it, its mutants
# survive. A fault is a mutant_active("NAME") in the source (src/sampling/mutation.h). Each line below:
# NAME, then the test program that must fail.
set -u -o pipefail
cd "$(dirname "$0")/.."

mutants='
rejection_accept_x1.01        verify_test
block_accept_x1.01            verify_test
traversal_accept_x1.01        verify_test
residual_not_normalised       verify_test
residual_wrong_side           verify_test
draft_not_renormalised        verify_test
bonus_dropped                 verify_test
block_stops_at_first_failure  verify_test
block_residual_ignored        verify_test
traversal_biased_variant      verify_test
uniforms_shared_by_nodes      verify_test
penalties_without_path        verify_test
min_tokens_without_path       verify_test
noise_by_call_order           verify_test
noise_without_position        sampling_test
top_p_unpenalised             sampling_test
argmax_highest_id             sampling_test
ties_keep_highest_id          sampling_test
logprobs_of_processed         sampling_test
stop_prefix_shown             sampling_test
regex_counter_stuck           test_grammar
regex_nullable_head_ignored   test_grammar
grammar_rows_not_merged       test_grammar
grammar_mask_without_crossings test_grammar
grammar_plain_one_more        test_grammar
grammar_long_tokens_dropped   test_grammar
grammar_run_without_end       test_grammar
grammar_kinds_not_asked       test_grammar
grammar_kinds_end_ignored     test_grammar
grammar_kinds_behind_ignored  test_grammar
grammar_forced_past_end       test_grammar
regex_near_beyond_ceiling     test_grammar
schema_required_ignored       test_json_schema
schema_one_member_more        test_json_schema
schema_one_of_is_any_of       test_json_schema
grammar_undecided_taken       test_engine
grammar_mask_shifted          test_engine
mask_rows_mixed               test_grammar
grammar_end_ignored           test_engine
kv_off_by_one                 test_engine
kv_not_moved                  test_engine
mask_skips_parent             test_engine
penalties_skip_accepted       test_engine
stale_draft_kv                test_engine
returned_features_shifted     test_engine
returned_entries_stale        test_engine
costs_from_position_0         test_engine
returned_rows_misplaced       test_engine
features_off_by_one           model_tests
features_off_by_one           test_acceptance
residual_of_other_kind        model_tests
draft_position_off_by_one     model_tests
guessed_features_kept         test_engine
draft_tokens_shifted          test_engine
medusa_feature_before         test_engine
exit_layer_off_by_one         test_engine
shared_kv_moved_twice         test_engine
early_state_of_parent         test_engine
early_state_off_by_layer      test_engine
draft_slots_not_retained      test_engine
lookahead_window_left_behind  test_draft
watched_parent_read           test_engine
translated_by_number          test_engine
twin_text_cut_in_words        test_text
translated_position_off       test_engine
'

build=${1:-build/mutants}
shift || true
wanted=" $* "

suites=$(awk 'NF == 2 {print $2}' <<<"$mutants" | sort -u)
generator=()
command -v ninja >/dev/null && generator=(-G Ninja)
cmake -S . -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DSPECDEC_MUTANTS=ON \
  -DSPECDEC_BUILD_TOOLS=OFF >/dev/null || exit 2
# shellcheck disable=SC2086
cmake --build "$build" --parallel --target $suites >/dev/null || exit 2

run() {  # run MUTANT SUITE: the suite's exit status
  SPECDEC_MUTANT=$1 timeout 600 "$(find "$build/tests" -type f -name "$2" -perm -u+x | head -n 1)" \
    >/dev/null 2>&1
}

for suite in $suites; do
  if ! run '' "$suite"; then
    echo "mutants: $suite fails without a mutant; fix that first" >&2
    exit 2
  fi
done

killed=0
total=0
while read -r name suite; do
  [[ -z $name ]] && continue
  [[ $wanted != "  " && $wanted != *" $name "* ]] && continue
  total=$((total + 1))
  if run "$name" "$suite"; then
    printf '%-31s %-14s SURVIVED\n' "$name" "$suite"
  else
    killed=$((killed + 1))
    printf '%-31s %-14s killed\n' "$name" "$suite"
  fi
done <<<"$mutants"
echo "$killed of $total mutants killed"
[[ $killed -eq $total && $total -gt 0 ]]
