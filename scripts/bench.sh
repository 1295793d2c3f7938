#!/usr/bin/env bash
# Five to ten minutes of everything that uvsbench measures, and one report of it. usage: bench.sh DIRECTORY
# STRETCH (default 1s) is the length of each measured stretch; SEEDS (default 5) the runs of each simulation.
# ^C ends what runs, which keeps what it has so far, and goes on to the report.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$1 stretch=${STRETCH:-1s} seeds=${SEEDS:-5}
if [ "$(id -u)" != 0 ]; then
	echo "make bench makes network namespaces and needs root" >&2
	exit 1
fi
mkdir -p "$out"
rm -f "$out"/*.json
stopped=
trap 'stopped=1' INT
begun=$SECONDS
part() { # part NAME COMMAND...: one measurement; that it fails doesn't keep the others from running
	local name=$1 start=$SECONDS status=0
	shift
	[ -z "$stopped" ] || return 0
	echo "=== $name"
	"$@" || status=$?
	case $status in
	0) echo "=== $name: $((SECONDS - start)) s" ;;
	*) echo "=== $name: $((SECONDS - start)) s, status $status" ;;
	esac
}
into() { # into FILE COMMAND...: what it prints goes to a file as well
	local file=$1
	shift
	"$@" | tee "$file"
}
for study in bench/studies/*.yaml; do
	name=$(basename "$study" .yaml)
	part "simulation: $name" bin/uvsbench sim --study "$name" --seeds "$seeds" --connections 50000 --html none --json "$out/sim-$name.json" --quiet
done
part "directors: speed" bin/uvsbench wire --works packets-4k,http-keepalive,http-close,latency,latency-load \
	--subjects bare,nft,uvs-nat,haproxy,nginx,uvs-dr-1arm,haproxy-1arm --rounds 2 --time "$stretch" --json "$out/wire-speed.json" --quiet
part "directors: memory and failures" bin/uvsbench wire --works memory,server-dies,server-mute,server-removed,director-killed \
	--subjects nft,uvs-nat,haproxy,nginx,uvs-dr-1arm --rounds 1 --time "$stretch" --json "$out/wire-failures.json" --quiet
for method in dr nat; do
	part "load: $method" bin/uvsbench load --lab "$method" --requests 500 --connections 200 --datagrams 1000 --hold 500 --uneven --time 10s \
		--json "$out/load-$method.json"
done
part "stages" into "$out/micro.txt" bin/uvsbench micro --time 100ms
part "scale" into "$out/scale.txt" bin/uvsbench scale --small --rounds 2 --time 500ms
trap - INT
bin/uvsbench report --html "$out/report.html" "$out"/*.json
echo "$((SECONDS - begun)) s; stages and scale are in $out/micro.txt and $out/scale.txt"
