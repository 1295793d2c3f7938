package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// saved stands for a uvsd that has one service: a program uvsadm that the completion scripts ask.
const saved = `#!/bin/sh
case "$*" in
*save) printf '%s\n' '-A -t 192.0.2.100:80 -s rr' '-a -t 192.0.2.100:80 -r 10.0.0.11:80 -g -w 1' ;;
*sysctl*) printf '%s\n' 'net.ipv4.vs.am_droprate = 10' ;;
esac
`

// asking is how each shell is asked: it gets the script's path and the line, and prints what it would complete it with, one a
// line, perhaps with a tab and a description. fish is asked as it is, bash through what readline calls, zsh with the two
// functions of its completion system that take results replaced, since it completes for a terminal alone.
var asking = map[string]string{
	"bash": `source "$1"; COMP_LINE=$2 COMP_POINT=${#2}
		spec=$(complete -p uvsadm); spec=${spec##*-F }; ${spec%% *}
		printf '%s\n' "${COMPREPLY[@]}"`,
	"fish": `source $argv[1]; complete -C $argv[2]`,
	"zsh": `compdef() { asked=$1 }; source $1
		_describe() { for r in "${(@P)2}"; do [[ $r == $words[CURRENT]* ]] && print -r -- ${r%%:*}; done; true }
		compadd() { for r in "${(@P)2}"; do [[ $r == $words[CURRENT]* ]] && print -r -- $r; done; true }
		words=("${(@s: :)2}"); CURRENT=$#words; $asked`,
}

func TestShellsCompleteWordsAndOptions(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "uvsadm"), []byte(saved), 0o755))
	for _, shell := range []string{"bash", "zsh", "fish"} {
		needs(t, shell, shell)
		script, err := exec.Command(program("uvsadm"), "completion", shell).Output()
		must(t, err)
		file := filepath.Join(dir, "script."+shell)
		must(t, os.WriteFile(file, script, 0o644))
		ask := func(line string) (got []string) {
			t.Helper()
			args := map[string][]string{
				"bash": {"--norc", "-c", asking[shell], "bash", file, line}, "zsh": {"-f", "-c", asking[shell], "zsh", file, line},
				"fish": {"--no-config", "-c", asking[shell], file, line},
			}[shell]
			cmd := exec.Command(shell, args...)
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+dir)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%s, asked to complete %q: %v\n%s", shell, line, err, out)
			}
			for l := range strings.Lines(string(out)) {
				if l = strings.TrimSpace(l); l != "" {
					l, _, _ = strings.Cut(l, "\t")
					got = append(got, l)
				}
			}
			return got
		}
		for _, tt := range []struct {
			line    string
			want    string // among others if more is set
			more    bool
			without string
		}{
			{line: "uvsadm ", want: "status list connections mark sysctl save explain drain undrain completion version help", more: true},
			{line: "uvsadm undr", want: "undrain"},
			{line: "uvsadm --socket /x stat", want: "status"},
			{line: "uvsadm drain --", want: "--by --no-wait --json --tcp-service", more: true, without: "--from"},
			{line: "uvsadm drain ", want: "10.0.0.11:80", more: true},
			{line: "uvsadm mark ", want: "add del list"},
			{line: "uvsadm mark add 7 --proto ", want: "sctp tcp udp"},
			{line: "uvsadm explain -t ", want: "192.0.2.100:80"},
			{line: "uvsadm sysctl net", want: "net.ipv4.vs.am_droprate"},
			{line: "uvsadm completion ", want: "bash fish zsh"},
			{line: "uvsadm -A -t 192.0.2.100:80 -s wl", want: "wlc"},
			{line: "uvsadm -a -t 192.0.2.100:80 -r 10.0.0.11 --tun-type ", want: "gre gue ipip"},
			{line: "uvsadm --add-s", want: "--add-server --add-service"},
			{line: "uvsadm nonsense ", want: ""},
		} {
			got := ask(tt.line)
			for _, w := range strings.Fields(tt.want) {
				if !slices.Contains(got, w) {
					t.Errorf("%s completes %q with %q, without %s", shell, tt.line, got, w)
				}
			}
			if !tt.more && len(got) != len(strings.Fields(tt.want)) || tt.without != "" && slices.Contains(got, tt.without) {
				t.Errorf("%s completes %q with %q", shell, tt.line, got)
			}
		}
	}
}
