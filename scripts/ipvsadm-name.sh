#!/usr/bin/env bash
# Puts uvsadm in ipvsadm's place: /sbin/ipvsadm, ipvsadm-save and ipvsadm-restore lead to it, and dpkg sets aside what Debian's
# package has or will have there, under the names with .distrib; remove takes all of it back. As root, as often as one likes.
# usage: ipvsadm-name.sh install UVSADM DIR   UVSADM is copied to DIR, and the three names lead there
#        ipvsadm-name.sh remove
set -euo pipefail
names=(ipvsadm ipvsadm-save ipvsadm-restore)

fail() {
	echo "$*" >&2
	exit 1
}

# spellings NAME: the paths by which packages may call a program in /sbin, the one that the installed package uses first. Where
# /sbin and /usr/sbin are one directory dpkg knows nothing of it: each spelling needs a diversion of its own.
spellings() {
	local files
	if ! [ /sbin -ef /usr/sbin ]; then
		echo "/sbin/$1"
		return
	fi
	files=$(dpkg-query -L ipvsadm 2>/dev/null || true)
	if grep -qFx "/usr/sbin/$1" <<<"$files"; then
		echo "/usr/sbin/$1" "/sbin/$1"
	else
		echo "/sbin/$1" "/usr/sbin/$1"
	fi
}

# ours PATH: it is a link to uvsadm, or nothing is there.
ours() {
	if [ -L "$1" ]; then
		[[ $(readlink "$1") == */uvsadm ]]
	else
		! [ -e "$1" ]
	fi
}

# diverted PATH: it is, by us.
diverted() {
	local to
	to=$(dpkg-divert --truename "$1")
	[ "$to" = "$1.distrib" ] || [ "$to" = "$1.distrib.usr-is-merged" ]
}

# undo takes away our links and diversions, as many of them as there are.
undo() {
	local name path
	for name in "${names[@]}"; do
		if [ -L "/sbin/$name" ] && ours "/sbin/$name"; then
			rm "/sbin/$name"
		fi
		for path in "/sbin/$name" "/usr/sbin/$name"; do
			if diverted "$path"; then
				dpkg-divert --quiet --local --rename --remove "$path"
			fi
		done
	done
}

[ "$(id -u)" = 0 ] || fail "this changes /sbin and dpkg's diversions, and needs root"
command -v dpkg-divert >/dev/null ||
	fail "there is no dpkg-divert here: this is for Debian and its kin. Elsewhere remove ipvsadm's package and make the links yourself:" \
		"ln -s PATH/uvsadm /sbin/ipvsadm, and the same for ipvsadm-save and ipvsadm-restore"
case ${1-} in
install)
	[ $# = 3 ] || fail "usage: $0 install UVSADM DIR"
	[ -x "$2" ] || fail "$2 is not there: run make build first"
	mkdir -p "$3"
	dir=$(cd "$3" && pwd)
	install -m 755 "$2" "$dir/.uvsadm.new"
	mv "$dir/.uvsadm.new" "$dir/uvsadm" # at once: somebody may be calling it
	trap undo ERR
	for name in "${names[@]}"; do
		to=.distrib option=--rename
		for path in $(spellings "$name"); do
			diverted "$path" || dpkg-divert --quiet --local "$option" --divert "$path$to" --add "$path"
			to=.distrib.usr-is-merged option=--no-rename
		done
		ours "/sbin/$name" || { undo; fail "/sbin/$name is in the way"; }
		ln -sfn "$dir/uvsadm" "/sbin/$name"
	done
	echo "/sbin/ipvsadm, ipvsadm-save and ipvsadm-restore are $dir/uvsadm now; back with: make uninstall-ipvsadm"
	;;
remove)
	undo
	echo "/sbin/ipvsadm, ipvsadm-save and ipvsadm-restore are as they were before uvs"
	;;
*) fail "usage: $0 install UVSADM DIR | remove" ;;
esac
