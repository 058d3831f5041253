#!/usr/bin/env bash
# A first import by hand: send a file, wait for its job, look at what was refused.
#
#   make run                      (in another terminal; writes .local/env)
#   examples/curl.sh              imports examples/problems.csv
#   examples/curl.sh my.csv label imports your own file under a label of your choice
#
# Needs curl and jq. Against another installation: set TRIBUTARY_URL and TRIBUTARY_API_KEY.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${TRIBUTARY_URL:-}" ]; then
  set -a
  # shellcheck source=/dev/null
  . "$here/../.local/env"
  set +a
fi
file=${1:-$here/problems.csv}
label=${2:-$(basename "${file%.*}")}
api() { curl --fail-with-body --silent --show-error --retry 3 -H "X-API-Key: $TRIBUTARY_API_KEY" "$@"; }

echo "Sending $file as $label"
job=$(api -F "file=@$file" -F "import_source=$label" "$TRIBUTARY_URL/api/import" | jq --exit-status --raw-output .job_id)

while true; do
  status=$(api "$TRIBUTARY_URL/api/import/status/$job")
  state=$(jq --raw-output .state <<<"$status")
  echo "  job $job is $state"
  case "$state" in
    completed | failed | cancelled) break ;;
  esac
  sleep 1
done

jq '{state, counts, warnings, error}' <<<"$status"
echo "Rejected rows:"
api "$TRIBUTARY_URL/api/import/$job/rejections?limit=5" |
  jq --raw-output '.items[] | "  row \(.row_number): " + ([.problems[].reason] | join("; "))'
