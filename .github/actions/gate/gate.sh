#!/usr/bin/env bash
# Runs `cerank gate` with the inputs of action.yml, which are in the environment.
set -uo pipefail
words=(gate "$NEW" "$BASE" --qrels "$QRELS" --look "${LOOK:-0}" --markdown cerank-gate.md --junit cerank-gate.xml)
add() { # OPTION LINES: the option once for each line that is not blank
  while IFS= read -r line; do
    if [[ -n "${line// /}" ]]; then words+=("$1" "$line"); fi
  done <<<"$2"
}
add --margin "${MARGINS:-}"
add --superior "${SUPERIOR:-}"
add --slice-margin "${SLICE_MARGINS:-}"
if [[ -n "${SLICES:-}" ]]; then words+=(--slices "$SLICES"); fi
cerank "${words[@]}"
code=$?
case $code in 0) outcome=ships ;; 1) outcome=worse ;; 4) outcome="cannot tell" ;; *) exit $code ;; esac
echo "outcome=$outcome" >>"${GITHUB_OUTPUT:-/dev/null}"
cat cerank-gate.md >>"${GITHUB_STEP_SUMMARY:-/dev/null}"
if [[ $code -eq 4 && "${FAIL_ON_CANNOT_TELL:-true}" != true ]]; then exit 0; fi
exit $code
