#!/usr/bin/env bash
# Everything that guards uvs, suite by suite, each with its time. Needs root: the suites make network namespaces.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ]; then
	echo "make test makes network namespaces and needs root: run 'sudo make test' (make demo works without)" >&2
	exit 1
fi
scripts/deps.sh gcc libc6-dev curl iperf3 vsftpd nginx-light wrk dnsmasq-base bind9-dnsutils exim4-daemon-light msmtp \
	dovecot-pop3d socat postgresql squid tshark arptables nftables iputils-arping ipvsadm ldirectord keepalived mandoc zsh fish iproute2 tmux user-mode-linux kmod snmpd haproxy
times=()
suite() { # suite NAME COMMAND...
	local name=$1 start=$SECONDS
	shift
	echo "=== $name"
	"$@"
	times+=("$(printf '%-32s %4d s' "$name" $((SECONDS - start)))")
	echo "=== $name: $((SECONDS - start)) s"
}
all=$SECONDS
packages=$(go list ./... | grep -v '^uvs/e2e')
suite "build" make -s build
suite "lint" scripts/lint.sh
suite "unit, with race detector" go test -race -count=1 -timeout 8m $packages
suite "allocations, memory, growth" go test -count=1 -timeout 5m -run 'Alloc|Memory|TenThousand' $packages
# Most of these wait for timers of kernels and of uvs: four parts together take little longer than one. Each has every fourth test.
parts() {
	local n=4 i pids=() logs status=0 tests
	logs=$(mktemp -d)
	mapfile -t tests < <(go test -list '^Test' ./e2e | grep '^Test' | grep -v '^TestMatrix$')
	for ((i = 0; i < n; i++)); do
		local names=()
		for ((j = i; j < ${#tests[@]}; j += n)); do names+=("${tests[j]}"); done
		go test -count=1 -timeout 15m -run "^($(IFS='|'; echo "${names[*]}"))\$" ./e2e >"$logs/$i" 2>&1 &
		pids+=($!)
	done
	for ((i = 0; i < n; i++)); do
		wait "${pids[i]}" || status=1
		cat "$logs/$i"
	done
	rm -rf "$logs"
	return $status
}
suite "end to end" parts
table=$(mktemp)
trap 'rm -f "$table"' EXIT
suite "real programs" env UVS_MATRIX="$table" go test -count=1 -timeout 8m -run '^TestMatrix$' ./e2e
cat "$table"
suite "throughput, beside the kernel's" go test -run XXX -bench 'Iperf3/offloads=true' -benchtime 1x ./e2e
echo
printf '%s\n' "${times[@]}"
printf '%-32s %4d s\n' "all" $((SECONDS - all))
