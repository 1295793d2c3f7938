#!/usr/bin/env bash
# The end to end tests but for TestMatrix, four at a time, for they mostly wait for timers of kernels and of uvs. Each is a process
# of its own. One that fails beside others has one more try by itself, lest a busy machine be taken for a fault; it is named all
# the same, with what it said the first time.
#        e2e.sh [PATTERN]     only those whose names match the regular expression
set -euo pipefail
cd "$(dirname "$0")/../e2e"
export UVS_E2E_PROGRAMS
UVS_E2E_PROGRAMS=$(mktemp -d /tmp/uvs-e2e-XXXXXX)
trap 'rm -rf "$UVS_E2E_PROGRAMS"' EXIT
chmod 755 "$UVS_E2E_PROGRAMS" # a test runs uvsd as another user
CGO_ENABLED=0 go build -trimpath -o "$UVS_E2E_PROGRAMS/" ../cmd/uvsd ../cmd/uvsadm ../cmd/uvsdecap ../cmd/uvs-agent
CGO_ENABLED=1 go build -trimpath -race -o "$UVS_E2E_PROGRAMS/uvsd-race" ../cmd/uvsd
export UVS_E2E_TESTS=$UVS_E2E_PROGRAMS/tests
mkdir "$UVS_E2E_TESTS"
go test -c -o "$UVS_E2E_TESTS/e2e.test" .
one() { # one TEST LOG: runs a test and adds its time to the list
	local start=$SECONDS status=0
	"$UVS_E2E_TESTS/e2e.test" -test.timeout 10m -test.run "^$1\$" >"$2" 2>&1 || status=$?
	echo "$((SECONDS - start)) $1" >>"$UVS_E2E_TESTS/times"
	return $status
}
export -f one
mapfile -t tests < <("$UVS_E2E_TESTS/e2e.test" -test.list "${1:-^Test}" | grep '^Test' | grep -v '^TestMatrix$')
printf '%s\n' "${tests[@]}" | xargs -P 4 -I{} bash -c 'one {} "$UVS_E2E_TESTS/{}.log" || echo {} >>"$UVS_E2E_TESTS/failed"' || true
status=0 again=()
if [ -e "$UVS_E2E_TESTS/failed" ]; then
	mapfile -t again <"$UVS_E2E_TESTS/failed"
	for name in "${again[@]}"; do
		echo "--- $name failed beside others:"
		cat "$UVS_E2E_TESTS/$name.log"
		if one "$name" "$UVS_E2E_TESTS/$name.again"; then
			echo "--- $name passed by itself"
		else
			status=1
			echo "--- $name failed by itself as well:"
			cat "$UVS_E2E_TESTS/$name.again"
		fi
	done
fi
echo "${#tests[@]} tests, ${#again[@]} had a second try; the longest took (s):"
sort -rn "$UVS_E2E_TESTS/times" | head -5
exit $status
