#!/usr/bin/env bash
# Does the matrix of real programs notice a broken forwarding method? Builds uvsd with one line of a method broken at a time,
# by go build's -overlay (the tree is not touched), and runs that method's columns: every cell must fail.
# usage: broken.sh [NAME...]      with names of the list below; as root, some minutes each
#        broken.sh --list         only checks that the list still fits the sources
set -euo pipefail
cd "$(dirname "$0")/.."

# name | column | families | what is wrong | file | sed script
faults() {
	cat <<'LIST'
dr-mac|DR/offloads=(on,off)|IPv[46]|frames go to a MAC address that nobody has|dataplane/path.go|s/return w.transmit(f, p, hop, ForwardedDR)/other := *hop; other.Dst[5]++; return w.transmit(f, p, \&other, ForwardedDR)/
tun-length|TUN/offloads=(on,off)|IPv4|the outer header's length is that of the inner packet|forward/tunnel.go|s/\(packet.PutIPv4(.*\), n, h)/\1, n-packet.IPv4Len, h)/
tun-length6|TUN/offloads=(on,off)|IPv6|the same of IPv6|forward/tunnel.go|s/\(packet.PutIPv6(.*\), n-packet.IPv6Len, /\1, n-2*packet.IPv6Len, /
tun-address|TUN/offloads=(on,off)|IPv4|the outer header has another station's address|forward/tunnel.go|s/\(Header4{.*Dst: t.Dst.V4()\)/\1 + 100/
tun-address6|TUN/offloads=(on,off)|IPv6|the same of IPv6|forward/tunnel.go|/Header6{/,/})/s/Dst: t.Dst/Dst: t.Src/
tun-partial|TUN/offloads=on|IPv[46]|checksums that were left to the device are not completed before the encapsulation|forward/tunnel.go|s/^\t*CompleteChecksum(p.Frame, v)$//
nat-checksum|NAT/offloads=(on,off)|IPv[46]|addresses and ports are translated, checksums are not|packet/checksum.go|s/return Fold(uint64(c) + d)/return c/; /^func UpdatePort(/,/^}/s/return .*/return c/
nat-answer|NAT/offloads=(on,off)|IPv[46]|answers keep the real server's port|forward/nat.go|s/h.SetSrc(port)/h.SetSrc(old)/
LIST
}

only_list=
if [ "${1:-}" = --list ]; then
	only_list=1
	shift
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
holes=0 ran=0
while IFS='|' read -r name column families what file script; do
	[ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
	ran=$((ran + 1))
	sed "$script" "$file" >"$scratch/$name.go"
	if cmp -s "$file" "$scratch/$name.go"; then
		echo "$name: $file has no such line any more: mend the list in this script" >&2
		exit 1
	fi
	if [ "$only_list" ]; then
		echo "$name: $what"
		continue
	fi
	printf '{"Replace":{"%s":"%s"}}\n' "$PWD/$file" "$scratch/$name.go" >"$scratch/overlay.json"
	GOFLAGS="-overlay=$scratch/overlay.json" go build -o "$scratch/uvsd" ./cmd/uvsd # must be wrong, not uncompilable
	echo "=== $name: $what"
	# The last, empty element leaves the measurements out.
	GOFLAGS="-overlay=$scratch/overlay.json" go test -v -count=1 -timeout 20m -run "^TestMatrix\$/^${column//(on,off)/(on|off)}\$/./^$families\$/^\$" ./e2e \
		>"$scratch/$name.log" 2>&1 || true
	cells=$(grep -Eo -- '--- (PASS|FAIL): TestMatrix/[^/]+/[^/]+/[^/]+/IPv[46]' "$scratch/$name.log" || true)
	if [ -z "$cells" ]; then
		tail -50 "$scratch/$name.log" >&2
		echo "$name: no cell ran" >&2
		exit 1
	fi
	echo "    $(grep -c FAIL <<<"$cells") of $(wc -l <<<"$cells") cells fail"
	if grep PASS <<<"$cells"; then
		holes=1
	fi
done < <(faults)
if [ $ran -eq 0 ]; then
	echo "no fault is called $*" >&2
	exit 1
fi
exit $holes
