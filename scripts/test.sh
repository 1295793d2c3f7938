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
# Four packages at a time on two cores: some of them only wait.
suite "unit, with race detector" go test -p 4 -race -count=1 -timeout 8m $packages
suite "allocations, memory, growth" go test -count=1 -timeout 5m -run 'Alloc|Memory|TenThousand' $packages
suite "end to end" scripts/e2e.sh
table=$(mktemp)
trap 'rm -f "$table"' EXIT
suite "real programs" env UVS_MATRIX="$table" go test -count=1 -timeout 8m -run '^TestMatrix$' ./e2e
cat "$table"
suite "throughput, beside the kernel's" go test -run '^$' -bench 'Iperf3/offloads=true' -benchtime 1x ./e2e
echo
printf '%s\n' "${times[@]}"
printf '%-32s %4d s\n' "all" $((SECONDS - all))
