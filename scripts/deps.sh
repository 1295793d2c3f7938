#!/usr/bin/env bash
# Installs the Debian packages named as arguments that are missing, and says which. No service of theirs is started.
set -euo pipefail
missing=()
for p in "$@"; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0
echo "installing Debian packages: ${missing[*]}"
if ! command -v apt-get >/dev/null; then
	echo "this is not a Debian or Ubuntu machine: install them yourself" >&2
	exit 1
fi
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then # keeps the packages' scripts from starting services
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod +x $policy
	trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -q --no-install-recommends "${missing[@]}" >/tmp/uvs-deps.log 2>&1 || {
	apt-get update -q >/tmp/uvs-deps.log 2>&1
	apt-get install -y -q --no-install-recommends "${missing[@]}" >>/tmp/uvs-deps.log 2>&1
} || {
	tail -20 /tmp/uvs-deps.log >&2
	exit 1
}
