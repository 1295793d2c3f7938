# Completion of uvsadm's arguments for bash. Made by: uvsadm completion bash

# What uvsd has now, which may be nothing: -A lines name services, -r what follows it real servers.
_uvsadm_services() { uvsadm ${1:+--socket "$1"} save 2>/dev/null | while read -r kind _ addr _; do [[ $kind == -A ]] && echo "$addr"; done; }
_uvsadm_servers() { uvsadm ${1:+--socket "$1"} save 2>/dev/null | while read -r _ _ _ r addr _; do [[ $r == -r ]] && echo "$addr"; done; }
_uvsadm_settings() { uvsadm ${1:+--socket "$1"} sysctl -a 2>/dev/null | while read -r name _; do echo "$name"; done; }

_uvsadm() {
	# Not COMP_WORDS, which are cut at colons and equals signs.
	local line=${COMP_LINE:0:COMP_POINT} tokens=() cur prev word='' verb='' socket='' words='' kind='' list='' context i
	read -ra tokens <<<"$line"
	[[ $line == *[[:space:]] ]] && tokens+=('')
	cur=${tokens[${#tokens[@]} - 1]} prev=${tokens[${#tokens[@]} - 2]}
	for ((i = 1; i < ${#tokens[@]} - 1; i++)); do
		case ${tokens[i]} in
		--socket=*) socket=${tokens[i]#*=} ;;
		--socket) ((i++)) && socket=${tokens[i]} ;;
		-*) [[ -n $word ]] || word=- ;;
		*) if [[ -z $word ]]; then word=${tokens[i]}; elif [[ -z $verb ]]; then verb=${tokens[i]}; fi ;;
		esac
	done
	((${#tokens[@]} > 2)) || prev=''
	[[ -z $word && $cur == -* ]] && word=-
	context=$word
	[[ $word == mark && -n $verb ]] && context="mark $verb"
	if [[ $cur == --*=* ]]; then
		prev=${cur%%=*}
		cur=${cur#*=}
	fi
@SYNTAX@
	if [[ -z $context && $prev != --socket ]]; then
		list="$words --socket"
	elif [[ $context == - && ${#tokens[@]} -le 2 ]]; then
		list+=' --socket'
	fi
	case $kind in
	services) list+=" $(_uvsadm_services "$socket")" ;;
	servers) list+=" $(_uvsadm_servers "$socket")" ;;
	settings) list+=" $(_uvsadm_settings "$socket")" ;;
	files)
		COMPREPLY=($(compgen -f -- "$cur"))
		compopt -o filenames 2>/dev/null
		return
		;;
	esac
	COMPREPLY=($(compgen -W "$list" -- "$cur"))
	if [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]]; then # readline replaces what is behind the last colon only
		local head=${cur%"${cur##*:}"}
		COMPREPLY=("${COMPREPLY[@]#"$head"}")
	fi
}
complete -F _uvsadm uvsadm
