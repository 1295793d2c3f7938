package ipvsadm

import (
	_ "embed"
	"fmt"
	"strings"
)

// The scripts: what they do with the arguments is written there, what there is to complete is put in by completion.
var (
	//go:embed completion.bash
	bashScript string
	//go:embed completion.zsh
	zshScript string
	//go:embed completion.fish
	fishScript string
)

// completion is the word completion: a script for a shell.
func (r *run) completion(args []string) error {
	if len(args) != 1 {
		return r.complain("completion", "which shell? bash, zsh or fish")
	}
	switch args[0] {
	case "bash":
		r.out.WriteString(fillScript(bashScript, bashCases))
	case "zsh":
		r.out.WriteString(fillScript(zshScript, zshCases))
	case "fish":
		r.out.WriteString(fillScript(fishScript, fishLines))
	default:
		return r.complain("completion", "there is no script for %s, but for bash, zsh and fish", args[0])
	}
	return nil
}

// scriptPlace is the line of a script that gives way to what is made from the syntax.
const scriptPlace = "@SYNTAX@\n"

func fillScript(script string, lines func(*strings.Builder)) string {
	var b strings.Builder
	lines(&b)
	return strings.Replace(script, scriptPlace, b.String(), 1)
}

// topWords are the words that stand for themselves, without those behind another such as "mark add".
func topWords() (top []syntax) {
	for _, s := range wordSyntaxes {
		if !strings.Contains(s.name, " ") {
			top = append(top, s)
		}
	}
	return top
}

// verbs are what follows a word that has others behind it, with their help.
func verbs(s *syntax) (list []syntax) {
	for _, w := range wordSyntaxes {
		if verb, ok := strings.CutPrefix(w.name, s.name+" "); ok {
			list = append(list, syntax{name: verb, help: w.help})
		}
	}
	return list
}

// namesOf are all names of the options.
func namesOf(options []optionSyntax) (names []string) {
	for i := range options {
		names = append(names, options[i].names...)
	}
	return names
}

// sourceNames are what the scripts call sources.
var sourceNames = [...]string{anything: "nothing", fromServices: "services", fromServers: "servers", fromSettings: "settings", fromFiles: "files"}

// bashCases sets kind and list for what an option takes, or else list to the options and operands that may come.
func bashCases(b *strings.Builder) {
	var names []string
	for _, w := range topWords() {
		names = append(names, w.name)
	}
	fmt.Fprintf(b, "\twords=%s\n\tcase $context:$prev in\n\t*:--socket) kind=files ;;\n", quote(strings.Join(names, " ")))
	all := allSyntaxes()
	for _, s := range all {
		for _, o := range s.options {
			if o.value.name == "" {
				continue
			}
			var patterns []string
			for _, n := range o.names {
				patterns = append(patterns, quote(s.name+":"+n))
			}
			fmt.Fprintf(b, "\t%s) kind=%s list=%s ;;\n", strings.Join(patterns, "|"), sourceNames[o.value.source], quote(strings.Join(o.value.choices, " ")))
		}
	}
	b.WriteString("\t*)\n\t\tcase $context in\n")
	for _, s := range all {
		list := append(namesOf(s.options), s.operand.choices...)
		fmt.Fprintf(b, "\t\t%s) kind=%s list=%s ;;\n", quote(s.name), sourceNames[s.operand.source], quote(strings.Join(list, " ")))
	}
	b.WriteString("\t\tesac\n\t\t;;\n\tesac\n")
}

// zshCases is the same with a help text behind each item.
func zshCases(b *strings.Builder) {
	fmt.Fprint(b, "\twords_=(\n")
	for _, w := range topWords() {
		fmt.Fprintf(b, "\t\t%s\n", quote(w.name+":"+w.help))
	}
	fmt.Fprint(b, "\t)\n\tcase $context:$prev in\n\t*:--socket) kind=files ;;\n")
	all := allSyntaxes()
	for _, s := range all {
		for _, o := range s.options {
			if o.value.name == "" {
				continue
			}
			var patterns []string
			for _, n := range o.names {
				patterns = append(patterns, quote(s.name+":"+n))
			}
			fmt.Fprintf(b, "\t%s) kind=%s list=(%s) ;;\n", strings.Join(patterns, "|"), sourceNames[o.value.source], strings.Join(o.value.choices, " "))
		}
	}
	b.WriteString("\t*)\n\t\tcase $context in\n")
	for _, s := range all {
		fmt.Fprintf(b, "\t\t%s) kind=%s list=(", quote(s.name), sourceNames[s.operand.source])
		if v := verbs(&s); len(v) > 0 {
			for _, w := range v {
				fmt.Fprintf(b, " %s", quote(w.name+":"+w.help))
			}
		} else {
			for _, c := range s.operand.choices {
				fmt.Fprintf(b, " %s", quote(c))
			}
		}
		for _, o := range s.options {
			for _, n := range o.names {
				fmt.Fprintf(b, " %s", quote(n+":"+o.help))
			}
		}
		b.WriteString(" ) ;;\n")
	}
	b.WriteString("\t\tesac\n\t\t;;\n\tesac\n")
}

// fishLines is a complete command for each word and option.
func fishLines(b *strings.Builder) {
	for _, w := range topWords() {
		fmt.Fprintf(b, "complete -c uvsadm -n '__uvsadm_in \"\"' -a %s -d %s\n", w.name, quote(w.help))
	}
	for _, s := range allSyntaxes() {
		when := fmt.Sprintf("complete -c uvsadm -n '__uvsadm_in \"%s\"'", s.name)
		if s.name == letters {
			when = "complete -c uvsadm -n '__uvsadm_in \"\" -'"
		}
		if v := verbs(&s); len(v) > 0 {
			for _, w := range v {
				fmt.Fprintf(b, "%s -a %s -d %s\n", when, w.name, quote(w.help))
			}
		} else if from := fishValues(&s.operand); from != "" {
			fmt.Fprintf(b, "%s -a %s\n", when, from)
		}
		for _, o := range s.options {
			line := when
			for _, n := range o.names {
				if long, ok := strings.CutPrefix(n, "--"); ok {
					line += " -l " + long
				} else {
					line += " -s " + n[1:]
				}
			}
			if o.value.name != "" {
				line += " -x"
				if from := fishValues(&o.value); from != "" {
					line += " -a " + from
				}
			}
			if o.help != "" {
				line += " -d " + quote(o.help)
			}
			b.WriteString(line + "\n")
		}
	}
}

// fishValues is what fish takes as a list of values.
func fishValues(v *valueSyntax) string {
	switch v.source {
	case fromServices, fromServers, fromSettings:
		return "'(__uvsadm_" + sourceNames[v.source] + ")'"
	case fromFiles:
		return "'(__fish_complete_path)'"
	}
	if len(v.choices) > 0 {
		return quote(strings.Join(v.choices, " "))
	}
	return ""
}

// quote makes one word of s for any of the shells.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
