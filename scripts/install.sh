#!/usr/bin/env bash
# Installs the programs with their manual pages and uvsadm's shell completion below a directory, or takes just these away.
# usage: install.sh install BIN PREFIX   BIN has the programs, which make build puts there
#        install.sh remove PREFIX
# DESTDIR, where it is set, stands before every path: a package's directory.
set -euo pipefail
cd "$(dirname "$0")/.."
programs=(uvsd uvsadm uvsdecap uvs-agent)

fail() {
	echo "$*" >&2
	exit 1
}

# put FILE MODE: installs what it reads.
put() {
	mkdir -p "$(dirname "$1")"
	cat >"$1.new"
	chmod "$2" "$1.new"
	mv "$1.new" "$1" # a program that runs is replaced, not overwritten
}

# places sets where things are below PREFIX.
places() {
	root=${DESTDIR:-}$1
	sbin=$root/sbin man=$root/share/man/man8 man5=$root/share/man/man5
	bash=$root/share/bash-completion/completions/uvsadm
	zsh=$root/share/zsh/site-functions/_uvsadm
	fish=$root/share/fish/vendor_completions.d/uvsadm.fish
}

case ${1:-} in
install)
	[ $# = 3 ] || fail "usage: $0 install BIN PREFIX"
	for p in "${programs[@]}"; do
		[ -x "$2/$p" ] || fail "$2/$p is not there: make build comes first"
	done
	places "$3"
	for p in "${programs[@]}"; do
		put "$sbin/$p" 755 <"$2/$p"
		put "$man/$p.8" 644 <"man/$p.8"
	done
	put "$man5/uvs.yaml.5" 644 <man/uvs.yaml.5
	for shell in bash zsh fish; do
		put "${!shell}" 644 < <("$2/uvsadm" completion $shell)
	done
	;;
remove)
	[ $# = 2 ] || fail "usage: $0 remove PREFIX"
	places "$2"
	if [ -z "${DESTDIR:-}" ] && [ -L /sbin/ipvsadm ] && [ /sbin/ipvsadm -ef "$sbin/uvsadm" ]; then
		fail "/sbin/ipvsadm leads to $sbin/uvsadm: make uninstall-ipvsadm comes first"
	fi
	for p in "${programs[@]}"; do
		rm -f "$sbin/$p" "$man/$p.8"
	done
	rm -f "$man5/uvs.yaml.5" "$bash" "$zsh" "$fish"
	;;
*) fail "usage: $0 install BIN PREFIX | remove PREFIX" ;;
esac
