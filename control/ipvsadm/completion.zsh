#compdef uvsadm
# Completion of uvsadm's arguments for zsh. Made by: uvsadm completion zsh

# What uvsd has now, which may be nothing.
_uvsadm_services() { uvsadm ${1:+--socket $1} save 2>/dev/null | while read -r kind x addr rest; do [[ $kind == -A ]] && print -r -- $addr; done }
_uvsadm_servers() { uvsadm ${1:+--socket $1} save 2>/dev/null | while read -r kind x y r addr rest; do [[ $r == -r ]] && print -r -- $addr; done }
_uvsadm_settings() { uvsadm ${1:+--socket $1} sysctl -a 2>/dev/null | while read -r name rest; do print -r -- $name; done }

_uvsadm() {
	local cur=$words[CURRENT] prev=$words[CURRENT-1] word='' verb='' socket='' kind='' context i
	local -a words_ list found
	for ((i = 2; i < CURRENT; i++)); do
		case $words[i] in
		--socket=*) socket=${words[i]#*=} ;;
		--socket) ((i++)); socket=$words[i] ;;
		-*) [[ -n $word ]] || word=- ;;
		*) if [[ -z $word ]]; then word=$words[i]; elif [[ -z $verb ]]; then verb=$words[i]; fi ;;
		esac
	done
	((CURRENT > 2)) || prev=''
	[[ -z $word && $cur == -* ]] && word=-
	context=$word
	[[ $word == mark && -n $verb ]] && context="mark $verb"
@SYNTAX@
	if [[ -z $context && $prev != --socket ]]; then
		list=($words_ '--socket:where uvsd listens')
	fi
	case $kind in
	services) found=(${(f)"$(_uvsadm_services $socket)"}) ;;
	servers) found=(${(f)"$(_uvsadm_servers $socket)"}) ;;
	settings) found=(${(f)"$(_uvsadm_settings $socket)"}) ;;
	files) _files; return ;;
	esac
	(($#found)) && compadd -a found
	_describe uvsadm list
}

if [[ $funcstack[1] == _uvsadm ]]; then # by compinit, from a directory of fpath
	_uvsadm "$@"
else # read by: source <(uvsadm completion zsh)
	compdef _uvsadm uvsadm
fi
