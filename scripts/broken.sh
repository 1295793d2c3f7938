#!/usr/bin/env bash
# Does the matrix of real programs notice a broken forwarding method? Builds uvsd with one line of a method broken at a time,
# by go build's -overlay (the tree is not touched), and runs that method's columns: every cell must fail.
# usage: broken.sh [NAME...]      with names of the list below; as root, some minutes each
#        broken.sh --list         only checks that the list still fits the sources
set -euo pipefail
cd "$(dirname "$0")/.."

# name | column | what is wrong | file | sed script
faults() {
	cat <<'LIST'
dr-mac|DR/offloads=(on,off)|frames go to a MAC address that nobody has|dataplane/path.go|s/return w.transmit(f, p, hop, ForwardedDR)/other := *hop; other.Dst[5]++; return w.transmit(f, p, \&other, ForwardedDR)/
tun-length|TUN/offloads=(on,off)|the outer header's length is that of the inner packet|forward/tunnel.go|s/packet.PutIPv4(b, n, h)/packet.PutIPv4(b, n-packet.IPv4Len, h)/
tun-address|TUN/offloads=(on,off)|the outer header has another station's address|forward/tunnel.go|s/Header4{Src: t.Src.V4(), Dst: t.Dst.V4()}/Header4{Src: t.Src.V4(), Dst: t.Dst.V4() + 100}/
tun-partial|TUN/offloads=on|checksums that were left to the device are not completed before the encapsulation|forward/tunnel.go|s/^\tCompleteChecksum(p.Frame, v)$//
nat-checksum|NAT/offloads=(on,off)|addresses and ports are translated, checksums are not|packet/checksum.go|s/return Fold(uint64(c) + d)/return c/; /^func UpdatePort(/,/^}/s/return .*/return c/
nat-answer|NAT/offloads=(on,off)|answers keep the real server's port|forward/nat.go|s/h.SetSrc(port)/h.SetSrc(old)/
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
while IFS='|' read -r name column what file script; do
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
	GOFLAGS="-overlay=$scratch/overlay.json" go test -v -count=1 -timeout 20m -run "^TestMatrix\$/^${column//(on,off)/(on|off)}\$/./^\$" ./e2e \
		>"$scratch/$name.log" 2>&1 || true
	cells=$(grep -Eo -- '--- (PASS|FAIL): TestMatrix/[^/]+/[^/]+/[^/ ]+' "$scratch/$name.log" | grep -v '/checksums$' || true)
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
